"""Crops resampled on any device, bit for bit as Pillow's `resize(size, BILINEAR, box)` does it on the processor.

Pillow resamples the rows, rounds to eight bits, then resamples the columns, with the weights of `filters`. On a GPU one
Triton kernel does a whole batch (`resampling_triton`); the plain code here does one picture at a time.
"""

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from deepres.data.filters import HALF, PRECISION, filters
from deepres.runtime.cache_folder import cache_folder


class Cuts(NamedTuple):
    """Where n square crops lie, on the processor.

    `boxes` float32 (n, 4), left, top, right, bottom, are in pictures of `sizes` int64 (n, 2), width and height. Of
    these, parts are in memory that begin at `corners` int64 (n, 2), column and row. `flips` is bool (n,).
    """

    boxes: Tensor
    sizes: Tensor
    corners: Tensor
    flips: Tensor


def resampled(parts: Sequence[Tensor], cuts: Cuts, crop: int) -> Tensor:
    """Crops uint8 (n, 3, crop, crop), channels-last in memory, of parts of pictures on one device.

    Each part is uint8 (3, h, w), in any memory order, and has all pixels that its crop follows from (`needed`).
    """
    device = parts[0].device
    own = filters(cuts.boxes, cuts.sizes, crop, device)
    if device.type == "cuda" and resamples():
        from deepres.data.resampling_triton import resample

        return resample(parts, cuts.corners, own, cuts.flips, crop)
    made = torch.empty((len(parts), crop, crop, 3), dtype=torch.uint8, device=device)
    starts = own.starts - cuts.corners[:, :, None].to(device)
    for number, part in enumerate(parts):
        view = _one(part, starts[number], own.weights[number])
        made[number] = (view.flip(2) if cuts.flips[number] else view).permute(1, 2, 0)
    return made.permute(0, 3, 1, 2)


def needed(box: Sequence[float], size: tuple[int, int], crop: int) -> tuple[int, int, int, int]:
    """The least part of a picture, in whole pixels, that has all that its crop follows from (or a pixel more)."""
    across, down = (max(1.0, (box[axis + 2] - box[axis]) / crop) + 1 for axis in (0, 1))
    left, top = max(0, int(box[0] - across)), max(0, int(box[1] - down))
    return left, top, min(size[0], int(box[2] + across) + 1), min(size[1], int(box[3] + down) + 1)


@cache
def resamples() -> bool:
    """Whether Triton makes kernels for this machine's GPU, which takes a C compiler, too. The first call tries it.

    The kernel has to give the bits of the plain code for a small crop.
    """
    if not torch.cuda.is_available() or find_spec("triton") is None:
        return False
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
    from deepres.data.resampling_triton import resample

    part = torch.arange(3 * 40 * 30).mul(37).remainder(256).byte().view(3, 40, 30)
    box, size = torch.tensor([[2.5, 3.25, 27.75, 28.5]]), torch.tensor([[31, 42]])
    cuts = Cuts(box, size, torch.tensor([[1, 2]]), torch.tensor([True]))
    own = filters(box, size, 9, torch.device("cuda"))
    try:
        made = resample([part.cuda()], cuts.corners, own, cuts.flips, 9)
    except Exception:  # Triton raises almost any exception where its tools are missing
        return False
    return torch.equal(made.cpu(), resampled([part], cuts, 9))


def _one(part: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """One crop, uint8 (3, crop, crop); `starts` is (2, crop), `weights` (2, k, crop)."""
    reach = torch.arange(weights.shape[1], device=part.device)[:, None]
    columns = (starts[0] + reach).clamp(max=part.shape[2] - 1)
    rows = (starts[1] + reach).clamp(max=part.shape[1] - 1)
    # Along the width, of the rows that are needed; then along the height.
    top = int(rows.min())
    wide = _rounded((part[:, top : int(rows.max()) + 1][:, :, columns] * weights[0]).sum(2))
    return _rounded((wide[:, rows - top] * weights[1][:, :, None]).sum(1))


def _rounded(sums: Tensor) -> Tensor:
    return ((sums + HALF) >> PRECISION).clamp(0, 255).to(torch.uint8)
