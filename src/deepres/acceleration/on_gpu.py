"""Networks whose training runs on this project's Triton kernels, on a GPU."""

import os

import torch
from torch import nn

from deepres.acceleration import on_triton, on_triton_blocks
from deepres.models.catalog import build
from deepres.runtime.cache_folder import cache_folder


def fits(network: str) -> bool:
    """Whether the kernels are for a network of the catalog: those made of blocks with batch normalization."""
    with torch.device("meta"):
        net = build(network)
    return on_triton.of_kind(net) or on_triton_blocks.fits_blocks(net)


def accelerate(net: nn.Module) -> None:
    """Make `net` train on the kernels, in place; parameters and their names stay, and other networks as they are."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
    if on_triton.of_kind(net):
        on_triton.accelerate(net)
    else:
        on_triton_blocks.accelerate_blocks(net)
