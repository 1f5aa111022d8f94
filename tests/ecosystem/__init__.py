"""Other tools, in their real form, at work in a real guest."""
