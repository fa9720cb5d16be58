"""The names of tensors: ours, and those that other libraries and repositories give to the same networks."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from deepres.runtime.errors import InputError, few
from deepres.weights.state import fold_biases


@dataclass(frozen=True)
class Layout:
    """The module names of one library or repository for the networks of Table 1, in pairs: theirs, ours.

    In a name {stage}, {block} and {layer} stand for numbers. `what` describes the network in messages. A state dict has
    this layout if it holds the parameter `first`. `first_stage` is their number of our conv2_x, and `first_layer` their
    number of the first layer of F. They count blocks from 0; we count from 1, as the paper does.
    """

    what: str
    first: str
    pairs: tuple[tuple[str, str], ...]
    first_stage: int
    first_layer: int = 1

    def ours(self, key: str) -> str | None:
        """Our name of their parameter or buffer `key`; None for a name that the layout does not have."""
        return _renamed(key, self.pairs, {"stage": 2 - self.first_stage, "block": 1, "layer": 1 - self.first_layer})

    def theirs(self, key: str) -> str | None:
        """Their name of our parameter or buffer `key`, the first of the pairs; None where there is none."""
        pairs = tuple((ours, theirs) for theirs, ours in self.pairs)
        return _renamed(key, pairs, {"stage": self.first_stage - 2, "block": -1, "layer": self.first_layer - 1})


BLOCK = "conv{stage}_x.{block}"
LAYER, PROJECTION = f"{BLOCK}.residual.layer", f"{BLOCK}.shortcut.projection"


def _conv_bn(conv: str, bn: str, ours: str) -> tuple[tuple[str, str], ...]:
    """The pairs of a convolution and of its batch normalization, which are `ours`.conv and `ours`.bn here."""
    return (conv, f"{ours}.conv"), (bn, f"{ours}.bn")


def _sequence(residual: str) -> Iterator[tuple[str, str]]:
    """The pairs of F where `residual` is a Sequential: convolution, BN, ReLU, convolution, and so on, by number."""
    for layer in (1, 2, 3):
        number = 3 * (layer - 1)
        yield from _conv_bn(f"{residual}.{number}", f"{residual}.{number + 1}", f"{LAYER}{layer}")


THEIR_BLOCK = "layer{stage}.{block}"
TORCHVISION = Layout(
    "a torchvision ResNet",
    "conv1.weight",
    (
        *_conv_bn("conv1", "bn1", "conv1"),
        *_conv_bn(f"{THEIR_BLOCK}.conv{{layer}}", f"{THEIR_BLOCK}.bn{{layer}}", f"{LAYER}{{layer}}"),
        *_conv_bn(f"{THEIR_BLOCK}.downsample.0", f"{THEIR_BLOCK}.downsample.1", PROJECTION),
        ("fc", "fc"),
        ("last_linear", "fc"),  # fbresnet152 of pretrainedmodels; its other names are torchvision's
        # kuangliu/pytorch-cifar, akamaster/pytorch_resnet_cifar10 and their many descendants
        *_conv_bn(f"{THEIR_BLOCK}.shortcut.0", f"{THEIR_BLOCK}.shortcut.1", PROJECTION),
        ("linear", "fc"),
    ),
    first_stage=1,
)
# models/resnet.lua of fb.resnet.torch is a Sequential: convolution, BN, ReLU, pool, four stages, average pool, view,
# linear layer. A block of it is {0: both branches {0: F, 1: shortcut}, 1: sum, 2: ReLU}. Converters from Lua keep the
# numbers, and put the linear layer behind a view of its own.
NUMBERED = Layout(
    "a ResNet of fb.resnet.torch",
    "0.weight",
    (
        *_conv_bn("0", "1", "conv1"),
        *_sequence("{stage}.{block}.0.0"),
        *_conv_bn("{stage}.{block}.0.1.0", "{stage}.{block}.0.1.1", PROJECTION),
        ("10.1", "fc"),
        ("10", "fc"),
    ),
    first_stage=4,
)
# weiaicunzai/pytorch-cifar100
SEQUENCES = Layout(
    "a ResNet whose conv1 is a sequence, as weiaicunzai's",
    "conv1.0.weight",
    (
        *_conv_bn("conv1.0", "conv1.1", "conv1"),
        *_sequence(f"{BLOCK}.residual_function"),
        *_conv_bn(f"{BLOCK}.shortcut.0", f"{BLOCK}.shortcut.1", PROJECTION),
        ("fc", "fc"),
    ),
    first_stage=2,
)
# ResNetForImageClassification of transformers: each convolution and its BN have one prefix
EMBEDDER, STAGE = "resnet.embedder.embedder", "resnet.encoder.stages.{stage}.layers.{block}"
TRANSFORMERS = Layout(
    "a ResNet of transformers",
    f"{EMBEDDER}.convolution.weight",
    (
        *_conv_bn(f"{EMBEDDER}.convolution", f"{EMBEDDER}.normalization", "conv1"),
        *_conv_bn(
            f"{STAGE}.layer.{{layer}}.convolution", f"{STAGE}.layer.{{layer}}.normalization", f"{LAYER}{{layer}}"
        ),
        *_conv_bn(f"{STAGE}.shortcut.convolution", f"{STAGE}.shortcut.normalization", PROJECTION),
        ("classifier.1", "fc"),
    ),
    first_stage=0,
    first_layer=0,
)
LAYOUTS = (TORCHVISION, NUMBERED, SEQUENCES, TRANSFORMERS)
# timm's VGG has convolutions in place of fully connected layers; the first of them covers the whole 7x7 map.
TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}


def torchvision_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a torchvision ResNet under our names; the tensors are the same objects.

    Torchvision's bottlenecks have the stride on the 3x3: build ours with `stride_on="3x3"`. Raises `InputError` with
    the keys that no torchvision ResNet has; `load_state` finds missing keys.
    """
    return _from_layout(state, TORCHVISION)


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict of a ResNet of Table 1 under torchvision's names: the inverse of `torchvision_state_dict`.

    Raises `InputError` with the keys for which torchvision has no name.
    """
    return _translated(state, TORCHVISION.theirs, "torchvision has no such network: it has no name for")


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """The layout of a ResNet's names; None where they have no foreign layout (then they may be ours)."""
    return next((layout for layout in LAYOUTS if layout.first in state), None)


def foreign_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """A ResNet's state dict of another library or repository under our names; None where `layout_of` knows none.

    Our convolutions have no biases: theirs are subtracted from the running means of BN. Raises `InputError` for names
    that the layout does not have.
    """
    layout = layout_of(state)
    return None if layout is None else fold_biases(_from_layout(state, layout))


def rival_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of timm's VGG under our names, which are torchvision's; any other state dict unchanged."""
    renamed = {}
    for key, value in state.items():
        module, _, tensor = key.rpartition(".")
        ours = TIMM_VGG.get(module, module)
        renamed[f"{ours}.{tensor}"] = value.flatten(1) if ours != module and value.dim() > 1 else value
    return renamed


def _from_layout(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    return _translated(state, layout.ours, f"these weights are not of {layout.what}: unexpected")


def _translated(state: Mapping[str, Tensor], rename: Callable[[str], str | None], refusal: str) -> dict[str, Tensor]:
    """`state` under the names that `rename` gives. Raises `InputError`: `refusal`, then the keys it has no name for."""
    renamed = {key: rename(key) for key in state}
    unknown = [key for key, name in renamed.items() if name is None]
    if unknown:
        raise InputError(f"{refusal} {few(unknown)}")
    return {name: state[key] for key, name in renamed.items() if name is not None}


def _renamed(key: str, pairs: Iterable[tuple[str, str]], shift: Mapping[str, int]) -> str | None:
    """`key` renamed by the first of `pairs` that matches its module, with `shift` added to the numbers by name."""
    module, _, tensor = key.rpartition(".")
    for source, target in pairs:
        match = _pattern(source).fullmatch(module)
        if match:
            numbers = {name: int(number) + shift.get(name, 0) for name, number in match.groupdict().items()}
            return f"{target.format(**numbers)}.{tensor}"
    return None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(template)))
