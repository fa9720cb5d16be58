"""The kernel that resamples the crops of a batch on a GPU: `resampling` says what it computes."""

# pyright: basic, reportUnknownParameterType=false, reportGeneralTypeIssues=false, reportArgumentType=false
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from deepres.data.filters import HALF, PRECISION, Filters

FACTS = 7  # of a part: its column and row in the picture, width and height, and strides of colours, rows and columns


@triton.jit(do_not_specialize=["reach"])
def _resample_row(
    parts, facts, starts, taps, weights, flips, made, crop, reach,
    known: tl.constexpr, block: tl.constexpr, bits: tl.constexpr, half: tl.constexpr,
):  # fmt: skip
    """One row of one crop, all columns and colours."""
    number, row = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, block)
    inside = column < crop
    # The part of the picture, and the filters of this row and of all columns.
    pixels = tl.load(parts + number).to(tl.pointer_type(tl.uint8))
    fact = facts + number * known
    width, height = tl.load(fact + 2), tl.load(fact + 3)
    by_colour, by_row, by_column = tl.load(fact + 4), tl.load(fact + 5), tl.load(fact + 6)
    across, down = number * 2, number * 2 + 1
    left = tl.load(starts + across * crop + column, mask=inside, other=0) - tl.load(fact)
    top = tl.load(starts + down * crop + row) - tl.load(fact + 1)
    taps_across, taps_down = tl.load(taps + across), tl.load(taps + down)
    flip = tl.load(flips + number)
    target = made + ((number * crop + row) * crop + tl.where(flip != 0, crop - 1 - column, column)) * 3
    # Each line of the picture is resampled along the width, rounded, and added along the height.
    for colour in tl.static_range(3):
        total = tl.full((block,), half, tl.int32)
        for y in range(taps_down):
            line = pixels + colour * by_colour + tl.minimum(top + y, height - 1) * by_row
            wide = tl.full((block,), half, tl.int32)
            for x in range(taps_across):
                weight = tl.load(weights + (across * reach + x) * crop + column, mask=inside, other=0)
                place = tl.minimum(tl.maximum(left + x, 0), width - 1)
                wide += weight * tl.load(line + place * by_column, mask=inside, other=0).to(tl.int32)
            wide = tl.minimum(tl.maximum(wide >> bits, 0), 255)
            total += tl.load(weights + (down * reach + y) * crop + row) * wide
        value = tl.minimum(tl.maximum(total >> bits, 0), 255).to(tl.uint8)
        tl.store(target + colour, value, mask=inside)


def resample(parts: Sequence[Tensor], corners: Tensor, filters: Filters, flips: Tensor, crop: int) -> Tensor:
    """The crops of `resampling.resampled`; `corners` int64 (n, 2) and `flips` are on the processor."""
    device = parts[0].device
    # A part is given by its address: no copy brings them together.
    shapes = torch.tensor([(part.shape[2], part.shape[1], *part.stride()) for part in parts])
    addresses = torch.tensor([part.data_ptr() for part in parts], dtype=torch.int64)
    known = (addresses, torch.cat([corners, shapes], 1).int(), flips.to(torch.int32))
    addresses, facts, flips = (one.to(device, non_blocking=True) for one in known)
    made = torch.empty((len(parts), crop, crop, 3), dtype=torch.uint8, device=device)
    _resample_row[(len(parts), crop)](
        addresses, facts, filters.starts, filters.taps, filters.weights, flips, made, crop, filters.weights.shape[2],
        known=FACTS, block=triton.next_power_of_2(crop), bits=PRECISION, half=HALF,
    )  # fmt: skip
    return made.permute(0, 3, 1, 2)
