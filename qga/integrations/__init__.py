"""Plugins for other tools: pyinfra, pytest, Testinfra. Each tool is imported only here."""

# Seconds for an answer of an agent whose guest may be emulated.
ANSWER_PATIENCE = 30.0
