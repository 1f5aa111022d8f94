"""One connection: its requests in order, its replies, its audit trail."""
