"""Networks whose training runs on this project's Triton kernels, on a GPU."""

import os
from importlib.util import find_spec

import torch
from torch import nn

from deepres.acceleration import on_triton, on_triton_blocks
from deepres.acceleration.on_kernels import KERNELS
from deepres.acceleration.step_kernels import trouble
from deepres.models.catalog import build
from deepres.runtime.cache_folder import cache_folder
from deepres.runtime.errors import InputError, Say

OLDEST = (8, 0)  # compute capability
KIND = "networks of blocks whose convolutions all have batch normalization behind them"


def accelerate(net: nn.Module) -> None:
    """Make `net` train on the kernels, in place; parameters and their names stay."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
    if on_triton.of_kind(net):
        on_triton.accelerate(net)
    else:
        on_triton_blocks.accelerate_blocks(net)


def resolve_kernels(kernels: str, network: str, excluding: str | None, say: Say) -> bool:
    """Whether a run on a GPU uses the kernels to train `network`, a name of the catalog; with `auto` if they can.

    `excluding` names a setting of the run that they do not know, if there is one. `say` is told where Triton is
    missing. Raises `InputError` for `on` where they cannot run, and for an unknown value.
    """
    if kernels not in KERNELS:
        raise InputError(f"unknown value {kernels!r} of kernels; give one of {', '.join(KERNELS)}")
    if kernels == "off":
        return False
    # What they are for, then what they need.
    trouble = None if _for(network) else f"on a GPU they are for {KIND}, not for {network}"
    if trouble is None and excluding is not None:
        trouble = f"on a GPU they do not know {excluding}"
    if trouble is None and (missing := _missing()):
        trouble = missing
        if kernels == "auto":
            say(f"the kernels cannot be had: {missing}; going on with PyTorch's own operations, which take longer")
    if trouble is not None and kernels == "on":
        raise InputError(f"kernels cannot be on: {trouble}; leave it out")
    return trouble is None


def _for(network: str) -> bool:
    """Whether the kernels are for a network."""
    with torch.device("meta"):
        net = build(network)
    return on_triton.of_kind(net) or on_triton_blocks.fits_blocks(net)


def _missing() -> str | None:
    """What this machine lacks for the kernels; None where it has all."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < OLDEST:
        return f"the GPU is older than NVIDIA's Ampere (compute capability {OLDEST[0]}.{OLDEST[1]})"
    return trouble() if torch.cuda.is_available() else None
