"""Triton kernels for the networks of Sec. 4.2 on a GPU. Nothing here is imported where Triton is not installed."""
