"""Doors for other tools: pyinfra, pytest, Testinfra. Each imports its tool only here."""
