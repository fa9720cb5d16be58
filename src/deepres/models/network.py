"""What every network here has in common."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from torch import Tensor, nn

from deepres.runtime.errors import InputError

if TYPE_CHECKING or find_spec("huggingface_hub"):
    from huggingface_hub import ModelHubMixin
else:

    class ModelHubMixin:
        """In a bare source tree without `huggingface_hub`, networks have no methods of the hub."""

        def __init_subclass__(cls, **facts: str):
            super().__init_subclass__()


Layer = Callable[[Tensor], Tensor]  # a module, or a function without parameters such as ReLU


class Storage(Protocol):
    """How networks are stored in files. Networks know nothing of files: `deepres.weights.hub` sets this."""

    def save(self, net: "Network", folder: Path) -> None:
        """Write the weights of `net` and what goes with them into `folder`."""
        ...

    def restore(self, place: str, network: str | None, how: Mapping[str, Any]) -> "Network":
        """The network in a folder, or of `owner/name` on the hub; `how` are the arguments of its client."""
        ...


class Network(
    nn.Module,
    ModelHubMixin,
    library_name="deepres",
    pipeline_tag="image-classification",
    paper_url="https://arxiv.org/abs/1512.03385",
):
    """A network of the catalog: a backbone gives the last map, which is pooled to one vector and classified.

    In evaluation it takes images (N, in_channels, H, W) to scores (N, num_classes) before softmax. In training it does
    so, too, or it gives a tuple of scores where it has auxiliary classifiers, its own first.
    `name` is its name in the catalog. `header` holds the arguments that it was built with and, of trained weights,
    where they come from. `mean` (C, H, W) or (C, 1, 1), in 0..1, is the mean image or color that is subtracted from
    its inputs. Header and mean go with the weights through `save_pretrained`, `push_to_hub` and `from_pretrained` of
    the Hugging Face hub.
    """

    storage: ClassVar[Storage]
    name: str
    header: dict[str, Any]
    mean: Tensor | None = None
    bins: ClassVar[tuple[int, ...]] = (1,)  # the last map is pooled into n x n bins for each n; 1 is global pooling
    pooling: ClassVar[Literal["average", "max"]] = "average"
    in_file: ClassVar[bool] = False  # run by the runtime of an exported file: images of one size
    smallest: ClassVar[int] = 1  # pixels a side of the smallest image of which a map is left
    region_fixed: ClassVar[bool] = False  # whether the regions of a detector must have `region_size`
    region_size: int = 14  # positions a side of the regions of `shared_map` that a detector pools

    def backbone(self) -> Mapping[str, Sequence[Layer]]:
        """The stages before the pooling, in order: the name of each one's map, and the layers that lead to it."""
        raise NotImplementedError

    def pooled(self, features: Tensor) -> Tensor:
        """The last map (N, C, H, W) to one vector an image, (N, C * bins): here by global average pooling."""
        return features.mean((2, 3))

    def classify(self, values: Tensor) -> Tensor:
        """The pooled values of N maps, (N, C * bins), channel by channel, to scores (N, num_classes)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        """Images (N, in_channels, H, W) to scores (N, num_classes), before softmax."""
        return self.classify(self.pooled(self.feature_map(self.large_enough(x))))

    def feature_map(self, x: Tensor, until: str | None = None, since: str | None = None) -> Tensor:
        """Images (N, in_channels, H, W) to the map `until` (default: the last one before the pooling), (N, C, H', W').

        With `since`, `x` is already the map of that name, or regions of it, and only the layers behind it run: the
        head of a detector on conv4_x is `feature_map(regions, since="conv4_x")`. Raises `InputError` for a name that
        `backbone` does not have, or `until` before `since`.
        """
        for layer in chain.from_iterable(self._between(since, until).values()):
            x = layer(x)
        return x

    def maps(self, x: Tensor, until: str | None = None, since: str | None = None) -> dict[str, Tensor]:
        """All maps by name, in order, that `feature_map` passes with the same arguments; errors as there."""
        found: dict[str, Tensor] = {}
        for name in self._between(since, until):
            found[name] = x = self.feature_map(x, name, since)
            since = name
        return found

    def _between(self, since: str | None, until: str | None) -> dict[str, Sequence[Layer]]:
        """The stages of the backbone behind `since`, up to and with `until`."""
        stages = self.backbone()
        names = list(stages)
        for name in (since, until):
            if name not in (None, *names):
                raise InputError(f"{self.name} has no map {name!r}; it has {', '.join(names)}")
        start = 0 if since is None else names.index(since) + 1
        stop = len(names) if until is None else names.index(until) + 1
        if stop < start:
            raise InputError(f"the map {until!r} of {self.name} is not behind {since!r}; give a later one")
        return {name: stages[name] for name in names[start:stop]}

    @property
    def shared_map(self) -> str | None:
        """The last map that a detector computes once for the whole image; what follows runs for each region.

        None for a network that cannot be cut so.
        """
        return None

    def region_features(self, regions: Tensor) -> Tensor:
        """Regions (R, C, region_size, region_size) of the map `shared_map` to what the last layer takes, (R, D)."""
        return self.pooled(self.feature_map(regions, since=self.shared_map))

    def drop_classifier(self) -> None:
        """Remove, in place, the layer that gives the scores: a detector has its own."""
        raise NotImplementedError

    def stages(self) -> Mapping[str, nn.Module]:
        """The rows of the network's table in its paper, by name; layers without weights may be missing."""
        return dict(self.named_children())

    def drop_auxiliary(self) -> None:
        """Remove, in place, classifiers that are used in training alone; most networks have none."""

    def large_enough(self, images: Tensor) -> Tensor:
        """`images` (N, C, H, W); raises `InputError` where they are too small for the network."""
        height, width = images.shape[2:]
        if min(height, width) < self.smallest:
            raise InputError(
                f"{self.name} takes images of {self.smallest} pixels a side or more, not of {height}x{width}; "
                f"give larger ones (--image-size {max(64, self.smallest)}, a larger crop, of a detector a larger side)"
            )
        return images

    def _save_pretrained(self, save_directory: Path) -> None:
        self.storage.save(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, network: str | None = None, **how: Any) -> Self:
        net = cls.storage.restore(model_id, network, how)
        if not isinstance(net, cls):
            raise TypeError(f"{model_id} is a {type(net).__name__}, not a {cls.__name__}")
        return net
