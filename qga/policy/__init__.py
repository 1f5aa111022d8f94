"""What the host may do, and the only way for a handler to open a file or start a program."""
