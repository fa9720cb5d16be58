"""What the anchors of a localizer must learn: which of them hold the object, and where it is. Whole batches at once."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from deepres.models.localization.plan import Stage


@dataclass(frozen=True)
class Rule:
    """Which anchors are positive or negative, by their overlap (IoU) with a box, and how many of an image are drawn."""

    positive: float  # at least
    negative: float  # below
    best: bool  # the anchor that overlaps a box most is positive, too, however little that is
    drawn: int
    share: float  # of the drawn anchors that are positive, at most


def rule_of(stage: Stage, anchors: int) -> Rule:
    """The rule of a stage: that of an RPN draws `anchors` of an image, half of them positive at most (Appendix C).

    The overlaps are those of Faster R-CNN and R-CNN; the paper gives none. The one anchor of an `rcnn` is its region.
    """
    return Rule(0.7, 0.3, True, anchors, 0.5) if stage == "rpn" else Rule(0.5, 0.5, False, 1, 1.0)


@dataclass(frozen=True, eq=False)
class Drawn:
    """The drawn anchors of N images: `positive` and `negative` bool (N, P), and the `nearest` box of each, (N, P)."""

    positive: Tensor
    negative: Tensor
    nearest: Tensor


def draw(anchors: Tensor, boxes: Tensor, rule: Rule) -> Drawn:
    """Anchors (P, 4) drawn by chance for the boxes (N, M, 4) of N images.

    Rows of zeros in `boxes` are none; of an image without boxes nothing is drawn. Anchors that cross the border take
    part: nearly all that are as large as an object in a crop do. The draw is the processor's, on any device.
    """
    overlap = box_iou(anchors, boxes.flatten(0, 1)).view(len(anchors), *boxes.shape[:2]).movedim(0, 1)  # (N, P, M)
    most, nearest = overlap.max(2)
    positive = most >= rule.positive
    if rule.best:
        best = overlap.amax(1, keepdim=True)
        positive |= ((overlap == best) & (best > 0)).any(2)
    present = (boxes[..., 2:] > boxes[..., :2]).all(2).any(1)[:, None]
    negative = (most < rule.negative) & ~positive & present
    # By chance among the positive ones, then so many negative ones that they are `drawn` together.
    chances = torch.rand(positive.shape).to(positive.device)
    positive = _first(positive, chances, round(rule.drawn * rule.share))
    return Drawn(positive, _first(negative, chances, rule.drawn - positive.sum(1, keepdim=True)), nearest)


def _first(mask: Tensor, chances: Tensor, count: int | Tensor) -> Tensor:
    """The mask with the `count` entries of each row that have the smallest chances, or all where they are fewer."""
    places = chances.masked_fill(~mask, 2.0).argsort(1).argsort(1)
    return mask & (places < count)
