"""Weights into a network: from its own state dict, or from torchvision's names of the same layers."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from deepres.errors import InputError
from deepres.models.catalog import RIVALS

SHOWN = 4
BN_COUNTER = "num_batches_tracked"

# torchvision's name of a module, and ours; its layer1.0 is the paper's conv2_1.
THEIRS = r"layer(?P<stage>[1-4])\.(?P<block>\d+)"
OURS = "conv{stage}_x.{block}"
TORCHVISION = (
    (r"conv1", "conv1.conv"),
    (r"bn1", "conv1.bn"),
    (rf"{THEIRS}\.conv(?P<layer>[1-3])", f"{OURS}.residual.layer{{layer}}.conv"),
    (rf"{THEIRS}\.bn(?P<layer>[1-3])", f"{OURS}.residual.layer{{layer}}.bn"),
    (rf"{THEIRS}\.downsample\.0", f"{OURS}.shortcut.projection.conv"),
    (rf"{THEIRS}\.downsample\.1", f"{OURS}.shortcut.projection.bn"),
    (r"fc", "fc"),
)
# In the rivals' state dicts, and in ours. GoogLeNet's auxiliary classifiers are of no use after training, and
# torchvision's trained nets lack them.
AUXILIARY = ("aux1.", "aux2.")
FIRST = ("conv1.conv.weight", "features.0.weight")
LAST = ("fc.bias", "classifier.6.bias", "fc3.bias")


def torchvision_state_dict(state: Mapping[str, Tensor], network: str | None = None) -> dict[str, Tensor]:
    """The state dict of a torchvision net under our names; the tensors are the same objects.

    Where `network` is one of the rivals (vgg16, googlenet, ...), the names are the same; all else is a ResNet. The
    bottleneck nets of torchvision have the stride on the 3x3: build ours with `stride_on="3x3"`. Raises
    `InputError` naming the keys that no torchvision ResNet has; `load_state` finds those that are missing.
    """
    if network in RIVALS:
        return dict(state)
    renamed = {key: _ours(key) for key in state}
    unknown = [key for key, ours in renamed.items() if ours is None]
    if unknown:
        raise InputError(f"these weights are not of a torchvision ResNet: unexpected {_few(unknown)}")
    return {ours: state[key] for key, ours in renamed.items() if ours is not None}


def ends(state: Mapping[str, Tensor]) -> tuple[int | None, int]:
    """The classes and the input channels of the network that `state` is of; (None, 3) where it does not tell."""
    classes = next((len(state[key]) for key in LAST if key in state), None)
    channels = next((state[key].shape[1] for key in FIRST if key in state), 3)
    return classes, channels


def load_state(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `net`. Raises `InputError` naming the first missing, unexpected, mis-shaped keys."""
    own = net.state_dict()
    # BN's count of batches plays no part here, and files older than it lack it.
    needed = (key for key in own if not key.endswith(BN_COUNTER) and not key.startswith(AUXILIARY))
    missing = [key for key in needed if key not in state]
    unexpected = [key for key in state if key not in own]
    misshaped = [
        f"{key} {tuple(state[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshaped))
    troubles = [f"{what} {_few(keys)}" for what, keys in found if keys]
    if troubles:
        raise InputError(f"these weights are not of {getattr(net, 'name', 'this network')}: {'; '.join(troubles)}")
    net.load_state_dict(own | dict(state))


def _ours(key: str) -> str | None:
    """Our name of torchvision's parameter or buffer `key`, or None."""
    module, _, tensor = key.rpartition(".")
    for theirs, ours in TORCHVISION:
        match = re.fullmatch(theirs, module)
        if match:
            numbers = match.groupdict()
            numbers |= {name: str(int(numbers[name]) + 1) for name in ("stage", "block") if name in numbers}
            return f"{ours.format(**numbers)}.{tensor}"
    return None


def _few(keys: Iterable[str]) -> str:
    """The first few of `keys`, and how many more there are."""
    every = list(keys)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
