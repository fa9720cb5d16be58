"""Box refinement and box voting, at the time of the test (Appendix B, after MR-CNN)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import box_iou

from deepres.models.detection.outputs import Detections

# From regions (R, 4) to their probabilities (R, 1 + K) and boxes (R, K, 4).
Predict = Callable[[Tensor], tuple[Tensor, Tensor]]


def refined(predict: Predict, regions: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """The predictions of the regions (R, 4), and behind them those of their regressed boxes, `rounds` times.

    Each round pools from the boxes of the one before, and all are joined: (R * (1 + rounds), 1 + K) probabilities and
    (R * (1 + rounds), K, 4) boxes.
    """
    every = [predict(regions)]
    for _ in range(rounds):
        every.append(predict(likeliest(*every[-1])))
    scores, boxes = zip(*every, strict=True)
    return torch.cat(scores), torch.cat(boxes)


def likeliest(probabilities: Tensor, boxes: Tensor) -> Tensor:
    """The regressed box (R, 4) of each region: that of its likeliest class, the background aside.

    A box that is no number, of a network that has diverged, is an empty one: pooling would read anywhere.
    """
    return boxes[torch.arange(len(boxes), device=boxes.device), probabilities[:, 1:].argmax(1)].nan_to_num()


def voted(found: Detections, boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Detections:
    """The detections with boxes that their neighbours voted on; scores and order stay (MR-CNN, Sec. 5).

    The new box is the mean, weighted by score, of the candidates `boxes` (k, 4) of the same class that overlap the
    detection by `overlap` or more, itself among them. `scores` (k,), above 0, and `labels` (k,) are theirs.
    """
    means = found.boxes.double()
    for label in found.labels.unique().tolist():
        own, voters = found.labels == label, labels == label
        near = box_iou(found.boxes[own], boxes[voters]) >= overlap
        weights = near * scores[voters].double()
        total = weights.sum(1, keepdim=True)
        # A box without an area overlaps nothing, and stays.
        means[own] = torch.where(total > 0, weights @ boxes[voters].double() / total, means[own])
    return Detections(means.float(), found.scores, found.labels)
