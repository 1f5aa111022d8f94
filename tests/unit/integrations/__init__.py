"""What the doors for other tools do by themselves, without a guest."""
