"""State dicts under our names: whether they fit a network, and how they are loaded into it."""

from collections.abc import Mapping

from torch import Tensor, nn

from deepres.models.registry import FIRST, LAST, NETWORKS
from deepres.runtime.errors import InputError, few

BN_COUNTER = "num_batches_tracked"
# GoogLeNet's auxiliary classifiers are used in training only; torchvision's trained networks lack them.
AUXILIARY = ("aux1.", "aux2.")


def load_state(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `net`. Raises `InputError` with the first missing, unexpected and mis-shaped keys."""
    troubles = misfits(net, state)
    if troubles:
        raise InputError(f"these weights are not of {getattr(net, 'name', 'this network')}: {troubles}")
    net.load_state_dict(net.state_dict() | dict(state))


def misfits(net: nn.Module, state: Mapping[str, Tensor]) -> str:
    """The first missing, unexpected and mis-shaped keys of `state` for `net`, as a text; "" if all fit."""
    own = net.state_dict()
    # BN's batch counter does not matter, and old files lack it; all auxiliary classifiers together may be missing.
    optional = () if any(key.startswith(AUXILIARY) for key in state) else AUXILIARY
    needed = (key for key in own if not key.endswith(BN_COUNTER) and not key.startswith(optional))
    missing = [key for key in needed if key not in state]
    unexpected = [key for key in state if key not in own]
    misshaped = [
        f"{key} {tuple(state[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshaped))
    return "; ".join(f"{what} {few(keys)}" for what, keys in found if keys)


def ends(state: Mapping[str, Tensor]) -> tuple[int | None, int]:
    """The numbers of classes and of input channels of the network of `state`; None and 3 if they cannot be told."""
    lasts = (LAST, *(row.last for row in NETWORKS.values()))
    classes = next((len(state[key]) for key in lasts if key in state and state[key].dim() == 1), None)
    channels = next((state[key].shape[1] for key in firsts() if key in state and state[key].dim() == 4), 3)
    return classes, channels


def firsts() -> tuple[str, ...]:
    """The names of the first layer's weight in all networks."""
    return FIRST, *(row.first for row in NETWORKS.values())


def fold_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` (our names) with biases of convolutions before BN subtracted from its running means: the same scores."""
    folded = dict(state)
    for key in state:
        mean = key.removesuffix("conv.bias") + "bn.running_mean"
        if key.endswith(".conv.bias") and mean in folded and folded[mean].shape == folded[key].shape:
            folded[mean] = folded[mean] - folded.pop(key)
    return folded
