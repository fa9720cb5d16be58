"""The true masks of one image, as the targets of a cascade need them."""

from typing import Protocol

from torch import Tensor


class TrueMasks(Protocol):
    """The masks of the n objects of one image, in its pixels as the network sees it."""

    @property
    def known(self) -> Tensor:
        """Whether the mask of each object is known, bool (n,)."""
        ...

    @property
    def areas(self) -> Tensor:
        """The area of each whole mask, float32 (n,), in square pixels; that of one not known is any number."""
        ...

    def cut(self, places: Tensor, boxes: Tensor, size: int) -> Tensor:
        """The masks of the objects at `places` (k,), each cut to one of `boxes` (k, 4) and resized.

        Returns float32 (k, size, size): the share of each position of the box that the mask covers, from 0 to 1. A mask
        that is not known gives anything.
        """
        ...
