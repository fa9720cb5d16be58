"""From scores and boxes of regions to detections: threshold, non-maximum suppression class by class, the best ones."""

import torch
from torch import Tensor
from torchvision.ops import nms

from deepres.models.detection.outputs import Detections

MOST_AT_ONCE = 4_000  # boxes of one call of `nms`, whose time grows with their square


@torch.no_grad()
def best(probabilities: Tensor, boxes: Tensor, threshold: float, overlap: float, most: int) -> Detections:
    """The detections of one image out of R regions: `probabilities` (R, 1 + K) and `boxes` (R, K, 4).

    Column 0 of the probabilities is that of the background. Of boxes of one class that overlap by more than `overlap`
    the one with the highest score is kept. Boxes without area, which lie outside of the image, are left out.
    """
    scores = probabilities[:, 1:].float()
    regions, labels = ((scores > threshold) & (boxes[..., 2:] > boxes[..., :2]).all(2)).nonzero().unbind(1)
    return suppressed(boxes[regions, labels].float(), scores[regions, labels], labels, overlap, most)


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, most: int) -> Detections:
    """The `most` best of boxes (k, 4) after suppression within each class."""
    kept = by_class(boxes, scores, labels, overlap)[:most]
    return Detections(boxes[kept], scores[kept], labels[kept])


def by_class(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """The places of the boxes that suppression within each class keeps, by falling score.

    The classes are moved apart, so that one call serves all; in float64, in which 80 classes of 1000 pixels lose
    nothing. Of many boxes, each class has a call of its own.
    """
    if not len(boxes):
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    if boxes.device.type == "mps":  # which has no float64
        return by_class(boxes.cpu(), scores.cpu(), labels.cpu(), overlap).to(boxes.device)
    boxes, scores = boxes.double(), scores.double()
    if len(boxes) <= MOST_AT_ONCE:
        apart = labels * (boxes.max() - boxes.min() + 1)
        return nms(boxes + apart[:, None], scores, overlap)
    each = [(labels == label).nonzero().flatten() for label in labels.unique()]
    kept = torch.cat([own[nms(boxes[own], scores[own], overlap)] for own in each]).sort().values
    return kept[scores[kept].argsort(descending=True, stable=True)]
