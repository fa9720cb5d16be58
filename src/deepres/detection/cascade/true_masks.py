"""The true masks of one image, as the targets of a cascade need them."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import roi_align


class TrueMasks(Protocol):
    """The masks of the n objects of one image, in its pixels as the network sees it."""

    @property
    def areas(self) -> Tensor:
        """The area of each whole mask, (n,), in square pixels."""
        ...

    def cut(self, places: Tensor, boxes: Tensor, size: int) -> Tensor:
        """The masks of the objects at `places` (k,), each cut to one of `boxes` (k, 4) and resized.

        Returns float32 (k, size, size): how much of the mask lies at each position of the box, in 0..1.
        """
        ...


@dataclass(frozen=True, eq=False)
class DenseMasks:
    """True masks as pictures: bool or uint8 (n, H, W), 1 inside of the object."""

    masks: Tensor

    @property
    def areas(self) -> Tensor:
        """As of `TrueMasks`."""
        return self.masks.sum((1, 2), dtype=torch.float32)

    def cut(self, places: Tensor, boxes: Tensor, size: int) -> Tensor:
        """As of `TrueMasks`: by bilinear interpolation, as the authors' code resizes."""
        rows = torch.cat([places[:, None].to(boxes), boxes], 1)
        if not len(rows):
            return boxes.new_zeros(0, size, size)
        return roi_align(self.masks[:, None].float(), rows, size, sampling_ratio=1, aligned=True)[:, 0]
