"""What every network here has in common."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from deepres.errors import InputError
from deepres.models import weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"  # the names that the hub knows
HOW = ("revision", "cache_dir", "force_download", "local_files_only", "token")  # a file is fetched from there


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

    name: str
    header: dict[str, Any]
    mean: Tensor | None = None
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
        (save_directory / WEIGHTS).write_bytes(weights.serialise(self.state_dict(), self.mean, self.header))
        (save_directory / CONFIG).write_text(json.dumps(self.header, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, network: str | None = None, **how: Any) -> Self:
        from deepres.models.pretrained import fetch, load  # which know all networks, as this class does not

        folder = Path(model_id)
        asked = {name: how[name] for name in HOW if name in how}
        net = load(folder / WEIGHTS if folder.is_dir() else fetch(model_id, **asked), network)
        if not isinstance(net, cls):
            raise TypeError(f"{model_id} is a {type(net).__name__}, not a {cls.__name__}")
        return net


def global_average(features: Tensor) -> Tensor:
    """Global average pooling: (N, C, H, W) to (N, C)."""
    return features.mean((2, 3))
