"""Which object of its picture each detection belongs to."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.masked import By, overlaps_and_shares
from deepres.models.detection.outputs import Detections


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each of k detections the object of its own class with the largest overlap, the first where several are equal.

    `places` int64 (k,) are rows of the `Truth`, and 0 where no object has the class. `overlaps` float64 (k,) are the
    IoU with these, and 0 where there is none. Crowd regions are no objects here: `crowded` float64 (k,) is the largest
    share of a detection's own area that lies inside one crowd region of its class.
    """

    places: Tensor
    overlaps: Tensor
    crowded: Tensor


def nearest(truth: Truth, found: Detections, by: By = "boxes") -> Nearest:
    """The nearest object of each detection of one picture. Boxes are compared in float64, on the processor.

    By masks, all overlaps and shares are those of the masks.
    """
    same_class, crowd = found.labels.cpu()[:, None] == truth.labels.cpu(), truth.crowd.cpu()
    if by == "masks":
        ious, shares = overlaps_and_shares(truth, found)
    else:
        ious, shares = overlaps_of(found.boxes, truth.boxes), shares_inside(found.boxes, truth.boxes)
    overlaps, places = largest(ious, same_class & ~crowd)
    crowded, _ = largest(shares, same_class & crowd)
    return Nearest(places, overlaps, crowded)


def largest(overlaps: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of each row of `overlaps` float64 (k, n) and its column, (k,) each.

    Only those count where `allowed` bool (k, n) is true; a row without one has the value 0 and the column 0.
    """
    if not overlaps.numel():
        nothing = overlaps.new_zeros(len(overlaps))
        return nothing, nothing.long()
    values, columns = torch.where(allowed, overlaps, 0).max(1)
    return values, columns


def overlaps_of(boxes: Tensor, others: Tensor) -> Tensor:
    """The IoU of each of k boxes with each of n others, float64 (k, n); 0 for a pair without area.

    Coordinates are continuous, so this is also the IoU of PASCAL VOC, whose boxes with inclusive ends have widths of
    xmax - xmin + 1.
    """
    return box_iou(boxes.cpu().double(), others.cpu().double()).nan_to_num(0)


def shares_inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """The share of each of k boxes that lies inside each of n regions, float64 (k, n); 0 for a box without area."""
    boxes, regions = boxes.cpu().double(), regions.cpu().double()
    ends = torch.minimum(boxes[:, None, 2:], regions[:, 2:]) - torch.maximum(boxes[:, None, :2], regions[:, :2])
    return (ends.clamp(min=0).prod(2) / box_area(boxes)[:, None]).nan_to_num(0)
