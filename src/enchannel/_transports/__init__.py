"""What carries messages to a kernel and back."""
