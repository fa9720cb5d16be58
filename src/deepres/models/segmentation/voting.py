"""Mask voting: the mask of a detection is the mean of those of all candidates near it (MNC, Sec. 6)."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from deepres.models.detection.outputs import Detections
from deepres.models.segmentation.outputs import Segments

Window = tuple[int, int, int, int]  # left, top, right and bottom, in whole pixels


def voted(
    found: Detections,
    boxes: Tensor,
    probabilities: Tensor,
    masks: Tensor,
    overlap: float,
    binarised: float,
    size: tuple[int, int],
) -> Segments:
    """The detections of a picture of `size` (height, width) with the masks that candidates voted on.

    Candidates are `boxes` (R, 4) inside of the picture, their `probabilities` (R, 1 + K) and `masks` (R, S, S) in 0..1,
    each of its box. Those that overlap a detection (IoU) by `overlap` or more vote, weighted by the probability of its
    class; weights are 1 together. Each mask is resized to its box and binarised, then the mean of the votes is, as in
    the authors' code: a pixel is inside from `binarised` on. All is on the processor.
    """
    same = (found.boxes[:, None] == boxes).all(2)  # a detection votes on its own mask, however its IoU is rounded
    near = (box_iou(found.boxes, boxes) >= overlap) | same
    pasted: dict[int, tuple[Window, Tensor]] = {}
    tight: list[Window] = []
    made: list[Tensor] = []
    for place, label in enumerate(found.labels.tolist()):
        voters = near[place].nonzero().flatten().tolist()
        weights = probabilities[voters, 1 + label]
        weights = weights / weights.sum()
        for voter in voters:
            if voter not in pasted:
                window = rounded(boxes[voter], size)
                pasted[voter] = window, resized(masks[voter], window) >= binarised
        # The vote, in a window around all voters.
        own = [pasted[voter] for voter in voters]
        around = _around([window for window, _ in own], rounded(found.boxes[place], size))
        votes = torch.zeros(around[3] - around[1], around[2] - around[0])
        for (window, mask), weight in zip(own, weights.tolist(), strict=True):
            _inside(votes, around, window).add_(mask, alpha=weight)
        # The smallest box around the pixels that won.
        won = votes >= binarised - 1e-6  # the sum of the weights may be rounded to below 1
        window = smallest(won, around) or rounded(found.boxes[place], size)
        tight.append(window)
        made.append(_inside(won, around, window).clone())
    exact = torch.tensor(tight, dtype=torch.float32).view(-1, 4)
    return Segments(exact, found.scores, found.labels, tuple(made))


def rounded(box: Tensor, size: tuple[int, int]) -> Window:
    """A box (4,) in whole pixels of a picture of `size`, of at least one pixel."""
    left, top, right, bottom = (round(edge) for edge in box.tolist())
    left, top = min(left, size[1] - 1), min(top, size[0] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def resized(mask: Tensor, window: Window) -> Tensor:
    """A mask (S, S) as the pixels of `window`, (bottom - top, right - left), by bilinear interpolation."""
    left, top, right, bottom = window
    return F.interpolate(mask[None, None], (bottom - top, right - left), mode="bilinear", align_corners=False)[0, 0]


def smallest(mask: Tensor, around: Window) -> Window | None:
    """The smallest window around the pixels of `mask`, which is that of the window `around`; None without a pixel."""
    rows, columns = (mask.any(side).nonzero().flatten() for side in (1, 0))
    if not len(rows):
        return None
    left, top = around[:2]
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _around(windows: list[Window], own: Window) -> Window:
    lefts, tops, rights, bottoms = zip(own, *windows, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _inside(values: Tensor, around: Window, window: Window) -> Tensor:
    """The part `window` of `values`, which are those of the window `around`."""
    left, top, right, bottom = window
    return values[top - around[1] : bottom - around[1], left - around[0] : right - around[0]]
