"""Life as a system service: log, persistent state, service manager, locale."""
