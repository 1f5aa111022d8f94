"""Starting programs, and learning how they end."""
