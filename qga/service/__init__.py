"""Life as a system service: daemon, service manager, log, and state that outlives a restart."""
