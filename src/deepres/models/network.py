"""What every network here has in common."""

from torch import Tensor, nn


class Network(nn.Module):
    """A network of the catalog, under its `name`."""

    name: str


def global_average(features: Tensor) -> Tensor:
    """Global average pooling: (N, C, H, W) to (N, C)."""
    return features.mean((2, 3))
