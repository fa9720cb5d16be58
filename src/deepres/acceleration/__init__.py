"""The same network in less time or memory: our kernels, compiled blocks, activation checkpointing, folded BN."""
