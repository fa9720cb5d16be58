"""What every network here has in common."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from deepres.errors import InputError


class Network(nn.Module):
    """A network of the catalog, under its `name`: images to a last map, pooled to one vector, to scores.

    In evaluation it takes (N, in_channels, H, W) to scores (N, num_classes); in training, too, or to a tuple of
    scores where it has auxiliary classifiers, its own first.
    """

    name: str
    bins: ClassVar[tuple[int, ...]] = (1,)  # the last map is pooled into n x n bins for each n; 1 is global pooling
    pooling: ClassVar[Literal["average", "max"]] = "average"
    smallest: ClassVar[int] = 1  # pixels a side of the smallest image of which a map is left

    def feature_map(self, images: Tensor) -> Tensor:
        """Images (N, in_channels, H, W) to the last map before the pooling, (N, C, H', W')."""
        raise NotImplementedError

    def classify(self, values: Tensor) -> Tensor:
        """The pooled values of N maps, (N, C * bins), channel by channel, to scores (N, num_classes)."""
        raise NotImplementedError

    def stages(self) -> Mapping[str, nn.Module]:
        """The rows of the network's table in its paper, by name; what has no weights may be left out."""
        return dict(self.named_children())

    def large_enough(self, images: Tensor) -> Tensor:
        """`images` (N, C, H, W); raises `InputError` where they are too small for the network."""
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise InputError(
                f"{self.name} takes images of {self.smallest} pixels a side or more, not of {height}x{width}; "
                f"give larger ones (for example --image-size {max(64, self.smallest)})"
            )
        return images


def global_average(features: Tensor) -> Tensor:
    """Global average pooling: (N, C, H, W) to (N, C)."""
    return features.mean((2, 3))
