"""Anchors: the boxes of several sizes and shapes around each position of a map (Faster R-CNN, Sec. 3.1.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

BASE = 16  # pixels a side of the box that is scaled and stretched, whatever the stride of the map


def base_anchors(scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The anchors of the first position, float32 (A, 4), ratio by ratio: those of the authors' code.

    A ratio is height by width. Sides of the stretched base are rounded to whole pixels, then scaled: scales 8, 16, 32
    and ratios 0.5, 1, 2 give (-84, -40, 100, 56), ..., (-168, -344, 184, 360). All are centred at (8, 8).
    """
    made: list[list[float]] = []
    for ratio in ratios:
        width = round((BASE * BASE / ratio) ** 0.5)
        height = round(width * ratio)
        for scale in scales:
            x, y = width * scale / 2, height * scale / 2
            made.append([BASE / 2 - x, BASE / 2 - y, BASE / 2 + x, BASE / 2 + y])
    return torch.tensor(made)


def anchors_over(size: tuple[int, int], base: Tensor, stride: int) -> Tensor:
    """The anchors of a map of `size` (height, width), float32 (height * width * A, 4): those of a position together."""
    height, width = size
    rows, columns = (torch.arange(length, device=base.device, dtype=base.dtype) for length in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([x, y, x, y], -1).view(-1, 1, 4) * stride
    return (shifts + base).view(-1, 4)
