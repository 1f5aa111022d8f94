"""What the administrator wants: options, the configuration file, their values and patterns."""
