"""What every network here has in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from deepres.runtime.errors import InputError


class Storage(Protocol):
    """How networks are kept in files, of which they know nothing themselves: `deepres.weights.hub` hands it in."""

    def save(self, net: "Network", folder: Path) -> None:
        """Write the weights of `net` and what goes with them into `folder`."""
        ...

    def open(self, place: str, network: str | None, how: Mapping[str, Any]) -> "Network":
        """The network in a folder, or of `owner/name` on the hub; `how` are the arguments of its client."""
        ...


class Network(
    nn.Module,
    ModelHubMixin,
    library_name="deepres",
    pipeline_tag="image-classification",
    paper_url="https://arxiv.org/abs/1512.03385",
):
    """A network of the catalog, under its `name`: images to a last map, pooled to one vector, to scores.

    In evaluation it takes (N, in_channels, H, W) to scores (N, num_classes); in training, too, or to a tuple of
    scores where it has auxiliary classifiers, its own first.
    `header` says which one it is and, of trained weights, where they come from; `mean` (C, H, W) or (C, 1, 1), in
    0..1, is what its inputs lack. Both go with the weights through `save_pretrained`, `push_to_hub` and
    `from_pretrained` of the Hugging Face hub.
    """

    storage: ClassVar[Storage]
    name: str
    header: dict[str, Any]
    mean: Tensor | None = None
    bins: ClassVar[tuple[int, ...]] = (1,)  # the last map is pooled into n x n bins for each n; 1 is global pooling
    pooling: ClassVar[Literal["average", "max"]] = "average"
    in_file: ClassVar[bool] = False  # run by the runtime of an exported file: images of one size, on the processor
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

    def drop_auxiliary(self) -> None:
        """Take off, in place, classifiers that work in training alone; most networks have none."""

    def large_enough(self, images: Tensor) -> Tensor:
        """`images` (N, C, H, W); raises `InputError` where they are too small for the network."""
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise InputError(
                f"{self.name} takes images of {self.smallest} pixels a side or more, not of {height}x{width}; "
                f"give larger ones (--image-size {max(64, self.smallest)}, or a larger crop)"
            )
        return images

    def _save_pretrained(self, save_directory: Path) -> None:
        self.storage.save(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, network: str | None = None, **how: Any) -> Self:
        net = cls.storage.open(model_id, network, how)
        if not isinstance(net, cls):
            raise TypeError(f"{model_id} is a {type(net).__name__}, not a {cls.__name__}")
        return net


def global_average(features: Tensor) -> Tensor:
    """Global average pooling: (N, C, H, W) to (N, C)."""
    return features.mean((2, 3))
