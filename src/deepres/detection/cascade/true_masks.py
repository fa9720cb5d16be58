"""The true masks of one image, as the targets of a cascade need them."""

from dataclasses import dataclass

from torch import Tensor

from deepres.detection.cut_masks import cut
from deepres.detection.targets import Objects
from deepres.runtime.masks import Masks, mask_areas


@dataclass(frozen=True, eq=False)
class TrueMasks:
    """The masks of the n objects of one image, whose size as the network sees it is `frame` (height, width)."""

    masks: Masks
    frame: tuple[int, int]

    @classmethod
    def of(cls, objects: Objects, frame: tuple[int, int]) -> "TrueMasks":
        """Those of the objects; without any masks, none of them is known."""
        none = Masks.of([b""] * len(objects.boxes), [frame] * len(objects.boxes))
        return cls(none if objects.masks is None else objects.masks, frame)

    @property
    def known(self) -> Tensor:
        """Whether the mask of each object is known, bool (n,)."""
        return self.masks.known

    @property
    def areas(self) -> Tensor:
        """The area of each whole mask, float32 (n,), in square pixels of the image; 0 where it is not known."""
        height, width = self.masks.sizes.clamp(min=1).double().unbind(1)
        return (mask_areas(self.masks) * (self.frame[0] / height) * (self.frame[1] / width)).float()

    def cut(self, places: Tensor, boxes: Tensor, size: int) -> Tensor:
        """The masks of the objects at `places` (k,), each cut to one of `boxes` (k, 4) and resized.

        Returns float32 (k, size, size): the share of each position of the box that the mask covers, from 0 to 1; nan
        where the mask is not known.
        """
        return cut(self.masks, boxes, places, self.frame, size)
