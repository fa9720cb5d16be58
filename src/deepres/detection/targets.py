"""What anchors and regions must learn: which of them hold an object, which one, and where it is.

Crowds (COCO) are areas without single boxes: what lies in one is neither positive nor negative.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from deepres.models.detection.boxes import encode, overlaps
from deepres.runtime.masks import Masks

POSITIVE, NEGATIVE, LEFT_OUT = 1, 0, -1
ANCHOR_POSITIVE, ANCHOR_NEGATIVE = 0.7, 0.3  # overlap (IoU) of an anchor with a box
REGION_POSITIVE = 0.5
IN_CROWD = 0.5  # share of an anchor or region in a crowd from which on it is left out


@dataclass(frozen=True, eq=False)
class Objects:
    """The boxes (n, 4) and labels (n,) of one image as the network sees it, and the boxes (m, 4) of its crowds.

    `masks`, where masks are learned, are those of the n boxes: mirrored with the image, but as large as the picture on
    disk, and on the processor. `cut_masks.cut` takes what lies in a box.
    """

    boxes: Tensor
    labels: Tensor
    crowds: Tensor
    masks: Masks | None = None

    def to(self, device: torch.device) -> "Objects":
        """The same on `device`, but for the masks."""
        return Objects(self.boxes.to(device), self.labels.to(device), self.crowds.to(device), self.masks)


@dataclass(frozen=True, eq=False)
class Sample:
    """Chosen anchors or regions of one image: their `places` (k,), the `labels` (k,), and `deltas` (p, 4).

    The first p are positive; the others are negative, with label 0. Labels of classes count from 1.
    """

    places: Tensor
    labels: Tensor
    deltas: Tensor


def anchor_labels(anchors: Tensor, size: tuple[int, int], objects: Objects) -> tuple[Tensor, Tensor]:
    """POSITIVE, NEGATIVE or LEFT_OUT of each anchor, int64 (P,), and the place of the box that it overlaps most, (P,).

    An anchor is positive if it overlaps a box by 0.7, or if no anchor overlaps that box more; negative if it overlaps
    all of them by less than 0.3. Anchors that cross the border of an image of `size` (height, width) are left out
    (Faster R-CNN, Sec. 3.1.2 and 3.1.3). Without boxes all are negative.
    """
    labels = torch.full((len(anchors),), LEFT_OUT, device=anchors.device)
    nearest = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    height, width = size
    inside = ((anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)).nonzero().flatten()
    if not len(inside):
        return labels, nearest
    own = torch.full((len(inside),), NEGATIVE, device=anchors.device)
    if len(objects.boxes):
        shared = box_iou(anchors[inside], objects.boxes)
        most, nearest[inside] = shared.max(1)
        own[most >= ANCHOR_NEGATIVE] = LEFT_OUT
        own[_in_crowd(anchors[inside], objects)] = LEFT_OUT
        best = shared.max(0).values
        own[((shared == best) & (best > 0)).any(1) | (most >= ANCHOR_POSITIVE)] = POSITIVE
    else:
        own[_in_crowd(anchors[inside], objects)] = LEFT_OUT
    labels[inside] = own
    return labels, nearest


def sample_anchors(anchors: Tensor, size: tuple[int, int], objects: Objects, count: int) -> Sample:
    """`count` anchors of an image by chance, up to half of them positive (Faster R-CNN, Sec. 3.1.3)."""
    labels, nearest = anchor_labels(anchors, size, objects)
    positive, negative = _drawn(labels, count, count // 2)
    deltas = encode(objects.boxes[nearest[positive]], anchors[positive])
    return Sample(torch.cat([positive, negative]), _labels(torch.ones_like(positive), negative), deltas)


def sample_regions(
    regions: Tensor, objects: Objects, count: int, positive_share: float, negatives_from: float
) -> Sample:
    """`count` regions of an image by chance, up to a share of them positive (Fast R-CNN, Sec. 2.3).

    A region is positive for the class of the box that it overlaps by 0.5 or more, and negative where its largest
    overlap is below that and at least `negatives_from`.
    """
    labels = torch.full((len(regions),), NEGATIVE, device=regions.device)
    nearest = torch.zeros_like(labels)
    if len(objects.boxes) and len(regions):
        most, nearest = box_iou(regions, objects.boxes).max(1)
        labels[most < negatives_from] = LEFT_OUT
    else:
        most = torch.zeros(len(regions), device=regions.device)
        labels[most < negatives_from] = LEFT_OUT
    labels[_in_crowd(regions, objects)] = LEFT_OUT
    labels[most >= REGION_POSITIVE] = POSITIVE
    positive, negative = _drawn(labels, count, round(count * positive_share))
    classes = _labels(1 + objects.labels[nearest[positive]], negative)
    return Sample(torch.cat([positive, negative]), classes, encode(objects.boxes[nearest[positive]], regions[positive]))


def _in_crowd(boxes: Tensor, objects: Objects) -> Tensor:
    if not len(objects.crowds):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return (overlaps(boxes, objects.crowds) >= IN_CROWD).any(1)


def _drawn(labels: Tensor, count: int, most: int) -> tuple[Tensor, Tensor]:
    """The places of at most `most` positive and of so many negative entries that they are `count` together."""
    positive, negative = ((labels == kind).nonzero().flatten() for kind in (POSITIVE, NEGATIVE))
    positive = _some(positive, most)
    return positive, _some(negative, count - len(positive))


def _some(places: Tensor, count: int) -> Tensor:
    """`count` of the places by chance; all of them where they are fewer. The draw is the processor's, on any device."""
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places))[:count].to(places.device)]


def _labels(positive: Tensor, negative: Tensor) -> Tensor:
    return torch.cat([positive, torch.zeros_like(negative)])
