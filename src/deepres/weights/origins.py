"""What the names of foreign weights tell, and what they do not: how images are normalised, the padding, a pool.

Two networks of the same names and shapes may compute different things: what cannot be told is asked for, since a wrong
guess would give scores that look like those of a bad network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
    """A library or repository: the mean and std of its images, the number of classes that it trains for, their names.

    None stands for any number: of a library whose networks are trained further on other pictures.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_classes: int | None = None
    classes: tuple[str, ...] = ()


LIBRARIES = Origin("torchvision, timm, transformers or fb.resnet.torch", IMAGENET_MEAN, IMAGENET_STD)
AKAMASTER = Origin("akamaster/pytorch_resnet_cifar10", IMAGENET_MEAN, IMAGENET_STD, 10, CIFAR_10)
KUANGLIU = Origin("kuangliu/pytorch-cifar", CIFAR_MEAN, (0.2023, 0.1994, 0.2010), 10, CIFAR_10)
CHENYAOFO = Origin(
    "chenyaofo/pytorch-cifar-models or bearpaw/pytorch-classification",
    CIFAR_MEAN,
    (0.2023, 0.1994, 0.2010),
    10,
    CIFAR_10,
)
HUYVNPHAN = Origin("huyvnphan/PyTorch_CIFAR10", CIFAR_MEAN, (0.2471, 0.2435, 0.2616), 10, CIFAR_10)
WEIAICUNZAI = Origin(
    "weiaicunzai/pytorch-cifar100",
    (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
    (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
    100,
)


@dataclass(frozen=True)
class Told:
    """A state dict under our names as our networks compute it, the header that goes with it, and where it is from."""

    state: dict[str, Tensor]
    header: dict[str, Any]
    origin: Origin | None


def told(
    theirs: Mapping[str, Tensor],
    state: dict[str, Tensor],
    layout: Layout,
    network: str | None,
    padding: Padding | None,
    say: Say,
) -> Told:
    """What a ResNet is whose tensors are named `theirs` in the file and as in `state` here.

    `network` and `padding` are what the user says of it; `say` is told of a padding that is taken for granted. Raises
    `InputError` where they do not go with the tensors, and where they are needed.
    """
    linear, stages = any(key.startswith("linear.") for key in theirs), _stages(state)
    parameterless = stages == 3 and not any(".shortcut." in key for key in state)
    if padding is not None and not parameterless:
        raise InputError("--padding is for networks with shortcuts of option A on three stages; leave it out")
    header: dict[str, Any] = {"stride_on": "3x3"}  # of a bottleneck
    if parameterless and linear and padding is None:
        say(
            f"the names are of {AKAMASTER.name}: shortcuts of option A are taken as padded on both sides, and the "
            "channels put into our order (deepres convert --padding behind for others)"
        )
    if parameterless:
        state, network = _with_padding(state, network, padding or ("both" if linear else None))
        header |= {"network": network} if network else {}
    if stages == 4 and is_small(state) and layout is TORCHVISION:
        header["network"] = network = f"resnet{layers_of(state)}-32px" if linear else _with_pool(state, network)
    origin = None if parameterless and not linear else _origin(layout, linear, stages, is_small(state), network)
    classes, channels = ends(state)
    if origin is not None and (channels != 3 or origin.num_classes not in (None, classes)):
        origin = None
    return Told(state, header, origin)


def _origin(layout: Layout, linear: bool, stages: int, small: bool, network: str | None) -> Origin | None:
    """Whose such names are; None for none that is known."""
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
    """The tensors for our padding and the name of the network, of one whose shortcuts have no parameters."""
    name = f"resnet{layers_of(state)}"
    if name not in of_depth(layers_of(state)):
        return state, network  # a layer is missing, which `identify` tells of
    if padding is not None:
        whole = not misfits(on_meta(name, *ends(state)), state)  # what is not, is refused when it is loaded
        return (padded_behind(state) if padding == "both" and whole else state), name
    if network is not None and not network.startswith("resnet"):
        return state, network  # plain
    raise InputError(
        f"these weights may be of {name} with shortcuts of option A, whose padding the names do not tell: convert them "
        "with --padding both (half of the new channels before the others, as F.pad(..., planes//4, planes//4)) or "
        f"--padding behind (all after them, as in deepres); or of a plain net: --network plain{layers_of(state)}"
    )


def _with_pool(state: Mapping[str, Tensor], network: str | None) -> str:
    """The name of a network with a conv1 of 3x3 under torchvision's names, which do not tell whether it has a pool."""
    name = f"resnet{layers_of(state)}-32px"
    if network is None:
        raise InputError(
            f"conv1 is of 3x3, and the names do not tell whether a max pool follows it: give --network {name} (none) "
            f"or --network {name}-pool (as {HUYVNPHAN.name})"
        )
    return network


def is_small(state: Mapping[str, Tensor]) -> bool:
    """Whether a ResNet (our names) has the stem for 32-pixel images, which are not cropped."""
    return state["conv1.conv.weight"].shape[2:] == (3, 3)


def _stages(state: Mapping[str, Tensor]) -> int:
    """How many of conv2_x to conv5_x there are."""
    return len({key.partition(".")[0] for key in state if key.startswith("conv") and "_x." in key})
