"""Boxes as tensors (n, 4) of (left, top, right, bottom), in continuous pixels: right - left is the width."""

import math

import torch
from torch import Tensor

LARGEST_CHANGE = math.log(1000 / 16)  # of a width or height: exp of a wild regression stays finite


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """What regression must give for each of `anchors` (n, 4) to become that of `boxes` (n, 4): (n, 4).

    These are the moves of the centre in widths and heights of the anchor, and the logarithms of the changes of width
    and height (R-CNN, Faster R-CNN Eq. 2).
    """
    size, wanted = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    centre, aim = (anchors[:, 2:] + anchors[:, :2]) / 2, (boxes[:, 2:] + boxes[:, :2]) / 2
    return torch.cat([(aim - centre) / size, (wanted / size).log()], 1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """The boxes (n, ..., 4) that `deltas` (n, ..., 4) make of `anchors` (n, 4), the reverse of `encode`.

    A change of size is bounded by a factor of 62.5, so that boxes are finite for any finite deltas.
    """
    anchors = anchors.view(anchors.shape[0], *[1] * (deltas.dim() - 2), 4)
    size, centre = anchors[..., 2:] - anchors[..., :2], (anchors[..., 2:] + anchors[..., :2]) / 2
    moved = centre + deltas[..., :2] * size
    half = size * deltas[..., 2:].clamp(max=LARGEST_CHANGE).exp() / 2
    return torch.cat([moved - half, moved + half], -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`boxes` (..., 4) cut off at the border of an image of `size` (height, width)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], -1).flatten(-2)


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """The area of each of `boxes` (n, 4) that lies in each of `others` (m, 4), as a share of its own: (n, m)."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (high - low).clamp(min=0).prod(2) / area.clamp(min=torch.finfo(area.dtype).tiny)[:, None]
