"""The contract between the agent and its commands: how they are declared, found and checked."""
