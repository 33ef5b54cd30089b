"""What kernels and clients say: values and bytes, without input or output."""
