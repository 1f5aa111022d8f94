"""The contract between the agent and its commands: @command, schema, discovery, services."""
