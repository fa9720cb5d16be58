"""Kernels in Triton, for training on a GPU. Nothing here is imported where Triton is not installed."""
