"""The residual block's own kernels for processors: C++, with a pure PyTorch twin, built on first use."""
