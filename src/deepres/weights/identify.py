"""Find the network of a state dict by the names and shapes of its tensors alone."""

import re
from collections.abc import Mapping
from functools import cache

import torch
from torch import Size, Tensor

from deepres.models.catalog import build, depth, names
from deepres.models.network import Network
from deepres.models.registry import NETWORKS
from deepres.models.spec import of_depth
from deepres.runtime.errors import InputError, few
from deepres.weights.state import AUXILIARY, BN_COUNTER, ends, misfits

LAYER = re.compile(r"conv\d_x\.\d+\.residual\.layer\d\.conv\.weight")
ENDS = 2  # conv1 and fc
NEAR = 3  # how many depths are searched for the nearest network


def identify(state: Mapping[str, Tensor]) -> str:
    """The name of the network that has exactly these parameters and buffers (our names), with any number of classes.

    Raises `InputError` if no network has them, with the nearest one and the differences; and if several have them: a
    ResNet with shortcuts without parameters looks like a plain network (Sec. 3.3, option A).
    """
    own, layers = _shapes(state), layers_of(state)
    candidates = of_depth(layers) if layers > ENDS else NETWORKS
    found = [name for name in candidates if _shapes(on_meta(name, *ends(state)).state_dict()) == own]
    if not found:
        near = nearest(state)
        why = f"the names in the file are {few(state)}"
        if near is not None:
            why = f"the nearest is {near}, but: {misfits(on_meta(near, *ends(state)), state)}"
        raise InputError(f"these weights are of no network that is known here; {why}")
    if len(found) > 1:
        raise InputError(
            f"the weights do not say which network they are of, it could be {' or '.join(found)}; give --network"
        )
    return found[0]


def nearest(state: Mapping[str, Tensor]) -> str | None:
    """The network of a near depth that differs from `state` in the fewest names and shapes of tensors.

    None if no network has half of the names.
    """
    own, layers = _shapes(state), layers_of(state)
    depths = sorted({depth(name) for name in names()}, key=lambda known: abs(known - layers))
    near = [name for known in depths[:NEAR] for name in of_depth(known)] + [*NETWORKS]
    shapes = {name: _shapes(on_meta(name, *ends(state)).state_dict()) for name in near}
    alike = [name for name in near if 2 * len(own.keys() & shapes[name].keys()) >= len(own)]
    return min(alike, key=lambda name: len(own.items() ^ shapes[name].items()), default=None)


def layers_of(state: Mapping[str, Tensor]) -> int:
    """The number of weighted layers of a ResNet's `state` (our names); `ENDS` for a network without such blocks."""
    return sum(LAYER.fullmatch(key) is not None for key in state) + ENDS


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Size]:
    """Shapes by name, without BN's batch counters and auxiliary classifiers, which files may lack."""
    needed = (key for key in state if not key.endswith(BN_COUNTER) and not key.startswith(AUXILIARY))
    return {key: state[key].shape for key in needed}


@cache
def on_meta(name: str, classes: int | None, channels: int) -> Network:
    """The network on the "meta" device: names and shapes without weights."""
    with torch.device("meta"):
        return build(name, classes, channels)
