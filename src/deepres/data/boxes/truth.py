"""The objects of one picture, as its annotation tells them."""

from dataclasses import dataclass

from torch import Tensor

from deepres.runtime.masks import Masks


@dataclass(frozen=True, eq=False)
class Truth:
    """The n objects of one picture.

    `boxes` float32 (n, 4) are (left, top, right, bottom) in pixels of the upright picture. Coordinates are continuous:
    pixel k reaches from k to k + 1, so that right - left is the width. A box of PASCAL VOC, whose ends are pixels
    counted from 1 and lie inside of it, becomes (xmin - 1, ymin - 1, xmax, ymax): the "+1" of its widths is in there.
    `labels` int64 (n,) are places in the list of classes, none of which is the background. `difficult` (VOC) and
    `crowd` (COCO) are bool (n,). `areas` float32 (n,), in square pixels, are those that COCO sorts by size: of the mask
    where the annotation has one, else of the box. `masks` are those of the objects, in the same pixels; None where no
    masks were asked for, or the data have none.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    crowd: Tensor
    areas: Tensor
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.labels)
