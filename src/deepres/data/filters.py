"""The weights with which Pillow's bilinear resampling makes a pixel of others, as whole numbers."""

from typing import NamedTuple

import torch
from torch import Tensor

PRECISION = 22  # bits of a weight
HALF = 1 << (PRECISION - 1)


class Filters(NamedTuple):
    """What each pixel of n crops is a weighted sum of, along the width (0) and the height (1) of its picture.

    Pixel i of a crop begins at `starts[:, axis, i]`, int32 (n, 2, crop), and has the weights `weights[:, axis, :, i]`,
    int32 (n, 2, k, crop), of which those after the first `taps[:, axis]`, int32 (n, 2), are 0.
    """

    starts: Tensor
    taps: Tensor
    weights: Tensor


def filters(boxes: Tensor, sizes: Tensor, crop: int, device: torch.device) -> Filters:
    """The filters that make square crops of the parts `boxes` of pictures: triangles, wider where pictures shrink.

    `boxes` is float32 (n, 4): left, top, right, bottom; `sizes` is int64 (n, 2): width and height. Both are on the
    processor, the result is on `device`, which has to have float64.
    """
    # How far a filter reaches, which the processor has to know.
    scale = (boxes[:, 2:] - boxes[:, :2]).double() / crop
    taps = scale.clamp(min=1).ceil().int() * 2 + 1
    reach = torch.arange(int(taps.max()), device=device)[:, None]
    # Where each filter lies.
    low, scale, sizes = (known.to(device, non_blocking=True) for known in (boxes[:, :2].double(), scale, sizes))
    center = low[:, :, None] + (torch.arange(crop, device=device) + 0.5).double() * scale[:, :, None]
    support = scale.clamp(min=1)[:, :, None]
    starts = (center - support + 0.5).long().clamp(min=0)
    stops = (center + support + 0.5).long().minimum(sizes[:, :, None])
    # Its weights, whose sum is one, as whole numbers.
    places = starts[:, :, None] + reach
    distances = ((places - center[:, :, None] + 0.5) * (1 / support)[:, :, None]).abs()
    weights = torch.where(places < stops[:, :, None], (1 - distances).clamp(min=0), 0.0)
    weights = weights / weights.sum(2, keepdim=True)
    whole = (weights * (1 << PRECISION) + 0.5).int()
    return Filters(starts.int(), taps.to(device, non_blocking=True), whole.contiguous())
