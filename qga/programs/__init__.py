"""Starting programs, following them, and getting their exit status."""
