"""Metrics of guests: reading them, computing rates, and exporting them to Prometheus."""
