"""What guests are doing: figures, rates, and Prometheus."""
