"""Bytes to requests, and replies to bytes: QMP without any input or output of its own."""
