"""A server of the Model Context Protocol, through which an AI agent looks after guests.

What must stay true: nothing is offered that the command line does not allow; what a guest sends is
marked as data, bounded, and without characters that a reader would not see; every call ends, and a
guest that hangs delays nobody but those who ask for it. Only `server` needs the protocol's SDK.
"""
