"""What the figures of masks count: how far masks overlap, and what becomes of objects without one."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from deepres.data.boxes.truth import Truth
from deepres.models.detection.outputs import Detections
from deepres.runtime.masks import Masks, encoded, mask_overlaps, mask_shares

By = Literal["boxes", "masks"]  # what is compared of objects and detections


def all_masked(truth: Truth) -> Truth:
    """The objects as the figures of masks take them: one without a mask is difficult, and its box is its mask.

    So what is found there is neither hit nor miss, and it does not count in the recall. Raises `ValueError` where the
    objects were read without masks.
    """
    masks = masks_of(truth)
    lacking = (~masks.known).nonzero().flatten().tolist()
    if not lacking:
        return truth
    texts, difficult = masks.texts, truth.difficult.clone()
    for place in lacking:
        left, top, right, bottom = truth.boxes[place].round().long().tolist()
        pixels = torch.zeros(1, *masks.sizes[place].tolist(), dtype=torch.uint8)
        pixels[0, top:bottom, left:right] = 1
        texts[place], difficult[place] = encoded(pixels).texts[0], True
    return replace(truth, difficult=difficult, masks=Masks.of(texts, masks.sizes.tolist()))


def masks_of(one: Truth | Detections) -> Masks:
    """The masks of objects or detections. Raises `ValueError` where they have none."""
    if one.masks is not None:
        return one.masks
    if len(one):
        raise ValueError("boxes without masks have no figures of masks")
    return Masks.of([], [])


def overlaps_and_shares(truth: Truth, found: Detections) -> tuple[Tensor, Tensor]:
    """IoU of the masks of k detections with those of n objects, and their shares inside them, float64 (k, n)."""
    return mask_overlaps(masks_of(found), masks_of(truth)), mask_shares(masks_of(found), masks_of(truth))
