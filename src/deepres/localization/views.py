"""The views of a picture that a localizer is tested on, and the way back from their pixels to those of the picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deepres.classification.views import Protocol, center, dense, resized
from deepres.data.resizing import margin
from deepres.models.detection.boxes import clip


@dataclass(frozen=True, eq=False)
class View:
    """A view, uint8 (3, h, w), of a picture of `size` (height, width) that was resized to `seen` (height, width).

    `corner` (row, column) is where it begins there, and `flipped` says that it was mirrored.
    """

    image: Tensor
    size: tuple[int, int]
    seen: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    flipped: bool = False

    def in_picture(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) of the view in pixels of the picture, cut at its border."""
        if self.flipped:
            left, top, right, bottom = boxes.unbind(-1)
            width = self.image.shape[-1]
            boxes = torch.stack([width - right, top, width - left, bottom], -1)
        row, column = self.corner
        scale = boxes.new_tensor([self.size[1] / self.seen[1], self.size[0] / self.seen[0]]).repeat(2)
        return clip((boxes + boxes.new_tensor([column, row, column, row])) * scale, self.size)


def views_of(image: Tensor, protocol: Protocol, crop: int) -> list[View]:
    """The views of a picture uint8 (3, H, W) by `center` or `dense`, for a network of `crop`. Errors as there."""
    size, sizes = _size(image), protocol.sizes(crop)
    if protocol.name == "center":
        protocol.views(crop)  # raises where the crop has no room
        seen = resized(image, sizes[0])
        corner = margin(seen.shape[1], crop), margin(seen.shape[2], crop)
        return [View(center(seen, crop), size, _size(seen), corner)]
    every = dense(image, sizes, protocol.flip)
    mirrored = [False, True] if protocol.flip else [False]
    return [View(own, size, _size(own), flipped=flip) for own, flip in zip(every, mirrored * len(sizes), strict=True)]


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[1], image.shape[2]
