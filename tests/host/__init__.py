"""The host's side against a real guest, that of tests/guest."""
