"""The agent's commands as methods, one module for each group, named as those in commands/."""
