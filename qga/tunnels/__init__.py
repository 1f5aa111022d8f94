"""Multiplexing connections over one byte stream between guest and host; shared by both ends."""
