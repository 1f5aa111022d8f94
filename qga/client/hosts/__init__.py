"""The guests of this host: finding them, checking them, and giving them ports."""
