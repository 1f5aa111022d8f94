"""What the host may do, and the only doors to files and programs that ask."""
