"""Settings: command line, configuration file, values, patterns, and trust in files."""
