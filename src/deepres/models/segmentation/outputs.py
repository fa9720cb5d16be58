"""What a cascade finds in one picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepres.models.detection.outputs import Detections


@dataclass(frozen=True, eq=False)
class Segments(Detections):
    """The k detections of one picture with their masks, by falling score.

    `boxes` are in whole pixels, the smallest ones around their masks; where a mask has no pixel, the box of the
    detection, rounded. `masks` are bool (bottom - top, right - left), one a detection: the pixels of its box.
    """

    masks: Sequence[Tensor]

    def full(self, place: int, size: tuple[int, int]) -> Tensor:
        """The mask of the detection at `place`, bool (H, W), in a picture of `size`."""
        made = torch.zeros(size, dtype=torch.bool)
        left, top, right, bottom = (round(edge) for edge in self.boxes[place].tolist())
        made[top:bottom, left:right] = self.masks[place]
        return made
