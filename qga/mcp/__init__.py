"""A server of the Model Context Protocol, through which an AI agent manages guests.

What must stay true: only tools that the command line allows are offered. Everything that a guest
sends is marked as data, limited in size, and free of invisible characters. Every call ends, and a
hanging guest delays only calls to that guest. Only `server` needs the protocol's SDK.
"""
