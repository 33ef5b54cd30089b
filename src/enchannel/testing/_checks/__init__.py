"""What the specification asks of a kernel, check by check."""
