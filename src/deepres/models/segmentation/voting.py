"""Mask voting: the mask of a detection is the mean of those of all candidates near it (MNC, Sec. 6)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from deepres.models.detection.outputs import Detections
from deepres.runtime.masks import Masks, encoded


class Voters(NamedTuple):
    """The R candidates for detections of a picture, which vote on their masks."""

    boxes: Tensor  # (R, 4), in pixels of the picture
    probabilities: Tensor  # (R, 1 + K), the background first
    masks: Tensor  # (R, S, S) in 0..1, each of its box


Window = tuple[int, int, int, int]  # left, top, right and bottom, in whole pixels


def voted(
    found: Detections,
    boxes: Tensor,
    probabilities: Tensor,
    masks: Tensor,
    overlap: float,
    binarised: float,
    size: tuple[int, int],
) -> Detections:
    """The detections of a picture of `size` (height, width) with the masks that candidates voted on.

    Candidates are `boxes` (R, 4) inside of the picture, their `probabilities` (R, 1 + K) and `masks` (R, S, S) in 0..1,
    each of its box. Those that overlap a detection (IoU) by `overlap` or more vote, weighted by the probability of its
    class; weights are 1 together. Each mask is resized to its box and binarised, then the mean of the votes is, as in
    the authors' code: a pixel is inside from `binarised` on. Boxes become the smallest around their masks, in whole
    pixels; where no pixel is inside, that of the detection stays, rounded. All is on the processor.
    """
    same = (found.boxes[:, None] == boxes).all(2)  # a detection votes on its own mask, however its IoU is rounded
    near = (box_iou(found.boxes, boxes) >= overlap) | same
    pasted: dict[int, tuple[Window, Tensor]] = {}
    tight: list[Window] = []
    made: list[Masks] = []
    for place, label in enumerate(found.labels.tolist()):
        voters = near[place].nonzero().flatten().tolist()
        weights = probabilities[voters, 1 + label]
        weights = weights / weights.sum()
        for voter in voters:
            if voter not in pasted:
                window = rounded(boxes[voter], size)
                pasted[voter] = window, resized(masks[voter], window) >= binarised
        # The vote, and the smallest box around the pixels that won.
        votes = torch.zeros(size)
        for voter, weight in zip(voters, weights.tolist(), strict=True):
            (left, top, right, bottom), mask = pasted[voter]
            votes[top:bottom, left:right].add_(mask, alpha=weight)
        won = votes >= binarised - 1e-6  # the sum of the weights may be rounded to below 1
        tight.append(smallest(won) or rounded(found.boxes[place], size))
        made.append(encoded(won[None]))
    exact = torch.tensor(tight, dtype=torch.float32).view(-1, 4)
    return Detections(exact, found.scores, found.labels, Masks.joined(made))


def rounded(box: Tensor, size: tuple[int, int]) -> Window:
    """A box (4,) in whole pixels of a picture of `size`, of at least one pixel."""
    left, top, right, bottom = (round(edge) for edge in box.tolist())
    left, top = min(left, size[1] - 1), min(top, size[0] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def resized(mask: Tensor, window: Window) -> Tensor:
    """A mask (S, S) as the pixels of `window`, (bottom - top, right - left), by bilinear interpolation."""
    left, top, right, bottom = window
    return F.interpolate(mask[None, None], (bottom - top, right - left), mode="bilinear", align_corners=False)[0, 0]


def smallest(mask: Tensor) -> Window | None:
    """The smallest window around the pixels of a mask (H, W); None without a pixel."""
    rows, columns = (mask.any(side).nonzero().flatten() for side in (1, 0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
