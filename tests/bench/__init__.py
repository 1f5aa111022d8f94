"""The original agent and ours, measured side by side: `python -m tests.bench`."""
