"""The same network in less time or memory: own kernels, compiled blocks, blocks that run twice, folded BN."""
