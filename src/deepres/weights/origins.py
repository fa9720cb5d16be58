"""Where foreign weights come from, by their names: it decides the normalisation of images, the padding and the pool.

Two networks with the same names and shapes may compute different things. If the names leave it open, the user must
tell, since a wrong guess would only look like a bad network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from deepres.models.registry import IMAGENET_MEAN, IMAGENET_STD
from deepres.models.spec import of_depth
from deepres.runtime.errors import InputError, Say
from deepres.weights.identify import layers_of, on_meta
from deepres.weights.names import SEQUENCES, TORCHVISION, Layout
from deepres.weights.padding import padded_behind
from deepres.weights.state import ends, misfits

Padding = Literal["both", "behind"]
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Origin:
    """A library or repository: the mean and std of its images in 0..1, and the number and names of its classes.

    `num_classes` None means any number: many people finetune a library's networks on other images.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_classes: int | None = None
    classes: tuple[str, ...] = ()


LIBRARIES = Origin("torchvision, timm, transformers or fb.resnet.torch", IMAGENET_MEAN, IMAGENET_STD)
AKAMASTER = Origin("akamaster/pytorch_resnet_cifar10", IMAGENET_MEAN, IMAGENET_STD, 10, CIFAR_10)
KUANGLIU = Origin("kuangliu/pytorch-cifar", CIFAR_MEAN, (0.2023, 0.1994, 0.2010), 10, CIFAR_10)
CHENYAOFO = replace(KUANGLIU, name="chenyaofo/pytorch-cifar-models or bearpaw/pytorch-classification")
HUYVNPHAN = Origin("huyvnphan/PyTorch_CIFAR10", CIFAR_MEAN, (0.2471, 0.2435, 0.2616), 10, CIFAR_10)
WEIAICUNZAI = Origin(
    "weiaicunzai/pytorch-cifar100",
    (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
    (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
    100,
)


@dataclass(frozen=True)
class Hints:
    """What the user tells of weights whose file does not: the network, the padding of option A, one of several states.

    `normalised`: the user gave mean and std, so that none are assumed.
    """

    network: str | None = None
    padding: Padding | None = None
    take: str | None = None
    normalised: bool = False


@dataclass(frozen=True)
class Told:
    """A state dict that our network can load, its header fields, and its origin (None if unknown)."""

    state: dict[str, Tensor]
    header: dict[str, Any]
    origin: Origin | None


def told(theirs: Mapping[str, Tensor], state: dict[str, Tensor], layout: Layout, hints: Hints, say: Say) -> Told:
    """What can be told of a ResNet in `layout` from `theirs` (its tensors by their names) and `state` (by ours).

    `say` is told of a padding that is assumed. Raises `InputError` if `hints.network` or `hints.padding` contradict the
    tensors, or are needed and not given.
    """
    network, padding = hints.network, hints.padding
    linear, stages = any(key.startswith("linear.") for key in theirs), _stages(state)
    parameterless = stages == 3 and not any(".shortcut." in key for key in state)
    if padding is not None and not parameterless:
        raise InputError("--padding is for networks with shortcuts of option A on three stages; leave it out")
    header: dict[str, Any] = {"stride_on": "3x3"}  # of bottlenecks; other blocks ignore it
    # Shortcuts without parameters: option A with one padding or another, or a plain network.
    if parameterless and linear and padding is None:
        say(
            f"the names are of {AKAMASTER.name}: shortcuts of option A are taken as padded on both sides, and the "
            "channels put into our order (deepres convert --padding behind for others)"
        )
    if parameterless:
        state, network = _with_padding(state, network, padding or ("both" if linear else None))
        header |= {"network": network} if network else {}
    # A stem for 32-pixel images: with a max pool behind it, or without.
    if stages == 4 and is_small(state) and layout is TORCHVISION:
        header["network"] = network = f"resnet{layers_of(state)}-32px" if linear else _with_pool(state, network)
    # The library or repository, unless it has no network of so many classes or channels.
    origin = None if parameterless and not linear else _origin(layout, linear, stages, is_small(state), network)
    classes, channels = ends(state)
    if origin is not None and (channels != 3 or origin.num_classes not in (None, classes)):
        origin = None
    return Told(state, header, origin)


def _origin(layout: Layout, linear: bool, stages: int, small: bool, network: str | None) -> Origin | None:
    """The library or repository whose networks look so; None if none is known."""
    if layout is SEQUENCES:
        return WEIAICUNZAI if small else None
    if stages == 3 and layout is TORCHVISION:
        return AKAMASTER if linear else CHENYAOFO
    if small:
        pooled = network is not None and network.endswith("-pool")
        return KUANGLIU if linear else HUYVNPHAN if pooled else None
    return None if linear else LIBRARIES


def _with_padding(
    state: dict[str, Tensor], network: str | None, padding: Padding | None
) -> tuple[dict[str, Tensor], str | None]:
    """The tensors reordered for our padding, and the name of the network, if its shortcuts have no parameters.

    Raises `InputError` where neither `padding` nor a plain `network` is given.
    """
    name = f"resnet{layers_of(state)}"
    if name not in of_depth(layers_of(state)):
        return state, network  # a layer is missing; `identify` raises the error
    if padding is not None:
        whole = not misfits(on_meta(name, *ends(state)), state)  # loading refuses the others
        return (padded_behind(state) if padding == "both" and whole else state), name
    if network is not None and not network.startswith("resnet"):
        return state, network  # plain
    raise InputError(
        f"these weights may be of {name} with shortcuts of option A, whose padding the names do not tell: convert them "
        "with --padding both (half of the new channels before the others, as F.pad(..., planes//4, planes//4)) or "
        f"--padding behind (all after them, as in deepres); or of a plain net: --network plain{layers_of(state)}"
    )


def _with_pool(state: Mapping[str, Tensor], network: str | None) -> str:
    """`network`, which tells whether a pool follows a 3x3 conv1. Raises `InputError` where it is None."""
    name = f"resnet{layers_of(state)}-32px"
    if network is None:
        raise InputError(
            f"conv1 is of 3x3, and the names do not tell whether a max pool follows it: give --network {name} (none) "
            f"or --network {name}-pool (as {HUYVNPHAN.name})"
        )
    return network


def is_small(state: Mapping[str, Tensor]) -> bool:
    """Whether a ResNet (our names) has the stem for 32-pixel images; these are not cropped."""
    return state["conv1.conv.weight"].shape[2:] == (3, 3)


def _stages(state: Mapping[str, Tensor]) -> int:
    """The number of stages of blocks, conv2_x to conv5_x."""
    return len({key.partition(".")[0] for key in state if key.startswith("conv") and "_x." in key})
