"""The names that other libraries and repositories give to the tensors of the same networks, and ours."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from deepres.runtime.errors import InputError, few
from deepres.weights.state import fold_biases


@dataclass(frozen=True)
class Layout:
    """Somebody's names of the modules of Table 1, in pairs with ours, in which {stage}, {block}, {layer} are numbers.

    `what` they are and the `first` parameter tell the layout. `first_stage` is their number of our conv2_x, and
    `first_layer` that of the first layer of F; their blocks count from 0, ours from 1 as in the paper.
    """

    what: str
    first: str
    pairs: tuple[tuple[str, str], ...]
    first_stage: int
    first_layer: int = 1

    def ours(self, key: str) -> str | None:
        """Our name of their parameter or buffer `key`, or None."""
        return _renamed(key, self.pairs, {"stage": 2 - self.first_stage, "block": 1, "layer": 1 - self.first_layer})

    def theirs(self, key: str) -> str | None:
        """Their name of our parameter or buffer `key`, or None; the first one, where they have two."""
        pairs = tuple((ours, theirs) for theirs, ours in self.pairs)
        return _renamed(key, pairs, {"stage": self.first_stage - 2, "block": -1, "layer": self.first_layer - 1})


BLOCK = "conv{stage}_x.{block}"
TORCHVISION = Layout(
    "a torchvision ResNet",
    "conv1.weight",
    (
        ("conv1", "conv1.conv"),
        ("bn1", "conv1.bn"),
        ("layer{stage}.{block}.conv{layer}", f"{BLOCK}.residual.layer{{layer}}.conv"),
        ("layer{stage}.{block}.bn{layer}", f"{BLOCK}.residual.layer{{layer}}.bn"),
        ("layer{stage}.{block}.downsample.0", f"{BLOCK}.shortcut.projection.conv"),
        ("layer{stage}.{block}.downsample.1", f"{BLOCK}.shortcut.projection.bn"),
        ("fc", "fc"),
        ("last_linear", "fc"),  # fbresnet152 of pretrainedmodels, otherwise named as torchvision's
        # kuangliu/pytorch-cifar, akamaster/pytorch_resnet_cifar10 and their many descendants
        ("layer{stage}.{block}.shortcut.0", f"{BLOCK}.shortcut.projection.conv"),
        ("layer{stage}.{block}.shortcut.1", f"{BLOCK}.shortcut.projection.bn"),
        ("linear", "fc"),
    ),
    first_stage=1,
)
# models/resnet.lua of fb.resnet.torch is a Sequential: conv, bn, relu, pool, four stages, average, view, linear. A
# block of it is {0: both branches {0: F, 1: shortcut}, 1: sum, 2: relu}. Converters from Lua keep the numbers, and put
# the linear layer behind a view of its own.
NUMBERED = Layout(
    "a ResNet of fb.resnet.torch",
    "0.weight",
    (
        ("0", "conv1.conv"),
        ("1", "conv1.bn"),
        *(
            (f"{{stage}}.{{block}}.0.0.{3 * (layer - 1) + place}", f"{BLOCK}.residual.layer{layer}.{what}")
            for layer in (1, 2, 3)
            for place, what in enumerate(("conv", "bn"))
        ),
        ("{stage}.{block}.0.1.0", f"{BLOCK}.shortcut.projection.conv"),
        ("{stage}.{block}.0.1.1", f"{BLOCK}.shortcut.projection.bn"),
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
        ("conv1.0", "conv1.conv"),
        ("conv1.1", "conv1.bn"),
        *(
            (
                f"conv{{stage}}_x.{{block}}.residual_function.{3 * (layer - 1) + place}",
                f"{BLOCK}.residual.layer{layer}.{what}",
            )
            for layer in (1, 2, 3)
            for place, what in enumerate(("conv", "bn"))
        ),
        ("conv{stage}_x.{block}.shortcut.0", f"{BLOCK}.shortcut.projection.conv"),
        ("conv{stage}_x.{block}.shortcut.1", f"{BLOCK}.shortcut.projection.bn"),
        ("fc", "fc"),
    ),
    first_stage=2,
)
# ResNetForImageClassification of transformers
STAGE = "resnet.encoder.stages.{stage}.layers.{block}"
TRANSFORMERS = Layout(
    "a ResNet of transformers",
    "resnet.embedder.embedder.convolution.weight",
    (
        ("resnet.embedder.embedder.convolution", "conv1.conv"),
        ("resnet.embedder.embedder.normalization", "conv1.bn"),
        (f"{STAGE}.layer.{{layer}}.convolution", f"{BLOCK}.residual.layer{{layer}}.conv"),
        (f"{STAGE}.layer.{{layer}}.normalization", f"{BLOCK}.residual.layer{{layer}}.bn"),
        (f"{STAGE}.shortcut.convolution", f"{BLOCK}.shortcut.projection.conv"),
        (f"{STAGE}.shortcut.normalization", f"{BLOCK}.shortcut.projection.bn"),
        ("classifier.1", "fc"),
    ),
    first_stage=0,
    first_layer=0,
)
LAYOUTS = (TORCHVISION, NUMBERED, SEQUENCES, TRANSFORMERS)
# timm's VGG has its fully connected layers as convolutions, the first of them over the whole 7x7 map.
TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}


def torchvision_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a torchvision ResNet under our names; the tensors are the same objects.

    The bottleneck nets of torchvision have the stride on the 3x3: build ours with `stride_on="3x3"`. Raises
    `InputError` naming the keys that no torchvision ResNet has; `load_state` finds those that are missing.
    """
    return _translated(state, TORCHVISION)


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict of a ResNet of Table 1 under torchvision's names: `torchvision_state_dict` backwards.

    Raises `InputError` naming the keys for which torchvision has no name.
    """
    renamed = {key: TORCHVISION.theirs(key) for key in state}
    unknown = [key for key, theirs in renamed.items() if theirs is None]
    if unknown:
        raise InputError(f"torchvision has no such network: it has no name for {few(unknown)}")
    return {theirs: state[key] for key, theirs in renamed.items() if theirs is not None}


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Whose names the tensors of a ResNet have; None where they are no foreign ones (then they may be ours)."""
    return next((layout for layout in LAYOUTS if layout.first in state), None)


def foreign_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """A ResNet's state dict of another library or repository under our names.

    Biases of its convolutions, which ours have not, go into the running means of BN. None where the names are no
    foreign ones; `InputError` where the names begin as theirs and some are unknown.
    """
    layout = layout_of(state)
    return None if layout is None else fold_biases(_translated(state, layout))


def rival_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of timm's VGG under our names, which are torchvision's; any other state dict as it is."""
    renamed = {}
    for key, value in state.items():
        module, _, tensor = key.rpartition(".")
        ours = TIMM_VGG.get(module, module)
        renamed[f"{ours}.{tensor}"] = value.flatten(1) if ours != module and value.dim() > 1 else value
    return renamed


def _translated(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    renamed = {key: layout.ours(key) for key in state}
    unknown = [key for key, ours in renamed.items() if ours is None]
    if unknown:
        raise InputError(f"these weights are not of {layout.what}: unexpected {few(unknown)}")
    return {ours: state[key] for key, ours in renamed.items() if ours is not None}


def _renamed(key: str, pairs: Iterable[tuple[str, str]], shift: Mapping[str, int]) -> str | None:
    """`key` with its module's name as in the first of `pairs` that fits, the numbers moved by `shift`."""
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
