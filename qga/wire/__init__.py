"""Converts bytes to requests and replies to bytes: QMP without any I/O."""
