"""Copying files and directories to a guest and from it."""
