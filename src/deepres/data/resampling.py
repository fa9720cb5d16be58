"""Crops resampled on any device, bit for bit as Pillow's `resize(size, BILINEAR, box)` does it on the processor.

Pillow resamples the rows, rounds to eight bits, then resamples the columns, with the weights of `filters`. On a GPU one
Triton kernel does a whole batch (`resampling_triton`); the plain code here does one picture at a time.
"""

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from deepres.data.filters import HALF, PRECISION, filters
from deepres.runtime.cache_folder import cache_folder


def resampled(pictures: Sequence[Tensor], boxes: Tensor, flips: Tensor, crop: int) -> Tensor:
    """The parts `boxes` (see `filters`) of pictures, uint8 (3, H, W) each, as square crops, flipped where `flips` says.

    `flips` is bool (n,) on the processor. Returns uint8 (n, 3, crop, crop), channels-last in memory, on the device of
    the pictures.
    """
    device = pictures[0].device
    sizes = torch.tensor([(picture.shape[2], picture.shape[1]) for picture in pictures])
    own = filters(boxes, sizes, crop, device)
    if device.type == "cuda" and _makes_kernels():
        from deepres.data.resampling_triton import resample

        return resample(pictures, sizes, own, flips, crop)
    made = torch.empty((len(pictures), crop, crop, 3), dtype=torch.uint8, device=device)
    for number, picture in enumerate(pictures):
        view = _one(picture, own.starts[number], own.weights[number])
        made[number] = (view.flip(2) if flips[number] else view).permute(1, 2, 0)
    return made.permute(0, 3, 1, 2)


@cache
def _makes_kernels() -> bool:
    """Whether Triton makes kernels for this machine's GPU, which takes a C compiler, too. The first call tries it."""
    if find_spec("triton") is None:
        return False
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
    from deepres.data.resampling_triton import resample

    boxes, sizes, device = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[2, 2]]), torch.device("cuda")
    picture = torch.zeros(3, 2, 2, dtype=torch.uint8, device=device)
    try:
        resample([picture], sizes, filters(boxes, sizes, 1, device), torch.tensor([False]), 1)
    except Exception:  # Triton raises almost any exception where its tools are missing
        return False
    return True


def _one(picture: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """One crop, uint8 (3, crop, crop); `starts` is (2, crop), `weights` (2, k, crop)."""
    reach = torch.arange(weights.shape[1], device=picture.device)[:, None]
    columns = (starts[0] + reach).clamp(max=picture.shape[2] - 1)
    rows = (starts[1] + reach).clamp(max=picture.shape[1] - 1)
    # Along the width, of the rows that are needed; then along the height.
    top = int(rows.min())
    wide = _rounded((picture[:, top : int(rows.max()) + 1][:, :, columns] * weights[0]).sum(2))
    return _rounded((wide[:, rows - top] * weights[1][:, :, None]).sum(1))


def _rounded(sums: Tensor) -> Tensor:
    return ((sums + HALF) >> PRECISION).clamp(0, 255).to(torch.uint8)
