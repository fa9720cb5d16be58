"""The kernel that resamples the crops of a batch on a GPU: `resampling` says what it computes."""

# pyright: basic, reportUnknownParameterType=false, reportGeneralTypeIssues=false, reportArgumentType=false
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from deepres.data.filters import HALF, PRECISION, Filters


@triton.jit(do_not_specialize=["reach"])
def _resample_row(
    pictures, sizes, starts, taps, weights, flips, made, crop, reach,
    block: tl.constexpr, bits: tl.constexpr, half: tl.constexpr,
):  # fmt: skip
    """One row of one crop, all columns and colours."""
    number, row = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, block)
    inside = column < crop
    # The picture, and the filters of this row and of all columns.
    pixels = tl.load(pictures + number).to(tl.pointer_type(tl.uint8))
    width, height = tl.load(sizes + 2 * number), tl.load(sizes + 2 * number + 1)
    across, down = number * 2, number * 2 + 1
    left = tl.load(starts + across * crop + column, mask=inside, other=0)
    top = tl.load(starts + down * crop + row)
    taps_across, taps_down = tl.load(taps + across), tl.load(taps + down)
    flip = tl.load(flips + number)
    target = made + ((number * crop + row) * crop + tl.where(flip != 0, crop - 1 - column, column)) * 3
    # Each line of the picture is resampled along the width, rounded, and added along the height.
    for colour in tl.static_range(3):
        total = tl.full((block,), half, tl.int32)
        for y in range(taps_down):
            line = pixels + (colour * height + tl.minimum(top + y, height - 1)) * width
            wide = tl.full((block,), half, tl.int32)
            for x in range(taps_across):
                weight = tl.load(weights + (across * reach + x) * crop + column, mask=inside, other=0)
                pixel = tl.load(line + tl.minimum(left + x, width - 1), mask=inside, other=0)
                wide += weight * pixel.to(tl.int32)
            wide = tl.minimum(tl.maximum(wide >> bits, 0), 255)
            total += tl.load(weights + (down * reach + y) * crop + row) * wide
        value = tl.minimum(tl.maximum(total >> bits, 0), 255).to(tl.uint8)
        tl.store(target + colour, value, mask=inside)


def resample(pictures: Sequence[Tensor], sizes: Tensor, filters: Filters, flips: Tensor, crop: int) -> Tensor:
    """The crops of `resampling.resampled`; `sizes` int64 (n, 2) and `flips` are on the processor."""
    device = pictures[0].device
    pictures = [picture.contiguous() for picture in pictures]
    # A picture is given by its address: no copy brings them together.
    addresses = torch.tensor([picture.data_ptr() for picture in pictures], dtype=torch.int64)
    known = (addresses, sizes.int(), flips.to(torch.int32))
    addresses, sizes, flips = (one.to(device, non_blocking=True) for one in known)
    made = torch.empty((len(pictures), crop, crop, 3), dtype=torch.uint8, device=device)
    reach = filters.weights.shape[2]
    _resample_row[(len(pictures), crop)](
        addresses, sizes, filters.starts, filters.taps, filters.weights, flips, made,
        crop, reach, block=triton.next_power_of_2(crop), bits=PRECISION, half=HALF,
    )  # fmt: skip
    return made.permute(0, 3, 1, 2)
