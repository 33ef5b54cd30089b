"""Kernels of one's own, and finding those of others."""
