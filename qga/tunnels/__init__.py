"""Many connections over one stream of bytes between guest and host: what both ends share."""
