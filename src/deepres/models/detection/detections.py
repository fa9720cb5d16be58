"""From scores and boxes of regions to detections: threshold, non-maximum suppression class by class, the best ones."""

import torch
from torch import Tensor

from deepres.models.detection.outputs import Detections
from deepres.models.detection.suppression import suppress


@torch.no_grad()
def best(probabilities: Tensor, boxes: Tensor, threshold: float, overlap: float, most: int) -> Detections:
    """The detections of one image out of R regions: `probabilities` (R, 1 + K) and `boxes` (R, K, 4).

    Column 0 of the probabilities is that of the background. Of boxes of one class that overlap by more than `overlap`
    the one with the highest score is kept.
    """
    return suppressed(*candidates(probabilities, boxes, threshold), overlap, most)


def candidates(probabilities: Tensor, boxes: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (k, 4), scores (k,) and labels (k,) of all pairs of region and class that score above the threshold.

    Boxes without area, which are those that regression moved out of the image, are left out.
    """
    scores = probabilities[:, 1:].float()
    regions, labels = ((scores > threshold) & (boxes[..., 2:] > boxes[..., :2]).all(2)).nonzero().unbind(1)
    return boxes[regions, labels].float(), scores[regions, labels], labels


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, most: int) -> Detections:
    """The `most` best of boxes (k, 4) after suppression within each class."""
    kept = by_class(boxes, scores, labels, overlap, most)
    return Detections(boxes[kept], scores[kept], labels[kept])


def by_class(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, most: int) -> Tensor:
    """The places of the `most` best boxes that suppression within each class keeps, by falling score.

    The classes are moved apart, so that one call serves all; in float64, in which 80 classes of 1000 pixels lose
    nothing.
    """
    if not len(boxes):
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    if boxes.device.type == "mps":  # which has no float64
        return by_class(boxes.cpu(), scores.cpu(), labels.cpu(), overlap, most).to(boxes.device)
    boxes = boxes.double()
    apart = labels * (boxes.max() - boxes.min() + 1)
    return suppress(boxes + apart[:, None], scores.double(), overlap, most)
