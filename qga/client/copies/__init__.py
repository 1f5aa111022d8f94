"""Copying files and folders to a guest and from it."""
