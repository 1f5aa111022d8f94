"""Doors for other tools: pyinfra, pytest, Testinfra. Each imports its tool only here."""

# Seconds for an answer of an agent whose guest may be emulated.
ANSWER_PATIENCE = 30.0
