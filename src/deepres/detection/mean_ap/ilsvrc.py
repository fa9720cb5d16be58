"""Mean average precision by the rules of ImageNet detection (ILSVRC DET), which is lenient to small objects."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.matching import largest, overlaps_of, shares_inside
from deepres.detection.mean_ap.voc import Judged, VocResult, class_figures, joined, objects_of
from deepres.models.detection.outputs import Detections

IOU, TOLERANCE = 0.5, 10.0  # that of large objects; pixels by which a box around a small one may be larger


def ilsvrc_map(truths: Sequence[Truth], found: Sequence[Detections], classes: Sequence[str]) -> VocResult:
    """The average precision of each class over all pictures, by the rules of ILSVRC's development kit (Table 12).

    They are those of VOC (`voc_map`, by area) but for two: an object of w x h pixels is found at an IoU of
    wh / ((w + 10)(h + 10)), where that is below 0.5; and a detection goes to the object with the largest IoU among
    those that no detection with a higher score has found. Doubtful classes of a picture are difficult objects and crowd
    regions in its `Truth`, and are left out. Raises `ValueError` where `truths` and `found` differ in length.
    """
    judged = judge(truths, found, len(classes))
    return VocResult(tuple(class_figures(judged, label, name) for label, name in enumerate(classes)), IOU, "area")


def least_overlaps(boxes: Tensor) -> Tensor:
    """The least IoU at which each object counts as found, for its box: (n, 4) to float64 (n,)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).double()
    return (sides.prod(1) / (sides + TOLERANCE).prod(1)).clamp(max=IOU)


def judge(truths: Sequence[Truth], found: Sequence[Detections], classes: int) -> Judged:
    """Which detections are hits and which are misses, by the rules of `ilsvrc_map`."""
    each = [_picture(truth, own) for truth, own in zip(truths, found, strict=True)]
    hits, ignored = (joined([own[which] for own in each], torch.bool) for which in (0, 1))
    sizes = torch.tensor([len(own) for own in found], dtype=torch.int64)
    pictures = torch.arange(len(found)).repeat_interleave(sizes)
    labels = joined([own.labels for own in found], torch.int64)
    scores, order = joined([own.scores for own in found], torch.float32).sort(descending=True, stable=True)
    scores, order = scores[~ignored[order]], order[~ignored[order]]
    return Judged(scores, labels[order], pictures[order], hits[order], objects_of(truths, classes))


def _picture(truth: Truth, found: Detections) -> tuple[Tensor, Tensor]:
    """Which detections of one picture hit an object, and which are left out, bool (k,) each."""
    # The overlaps with the objects that each detection would find.
    same_class, crowd = found.labels.cpu()[:, None] == truth.labels.cpu(), truth.crowd.cpu()
    overlaps = overlaps_of(found.boxes, truth.boxes)
    reached = torch.where(same_class & ~crowd & (overlaps >= least_overlaps(truth.boxes.cpu())), overlaps, 0).numpy()
    # By falling score, each detection takes the nearest object that is free; difficult ones are never taken.
    hits, ignored = np.zeros(len(found), bool), np.zeros(len(found), bool)
    difficult = truth.difficult.cpu().numpy()
    for place in found.scores.cpu().argsort(descending=True, stable=True).tolist():
        if not reached[place].any():
            continue
        nearest = reached[place].argmax()
        ignored[place], hits[place] = difficult[nearest], not difficult[nearest]
        if hits[place]:
            reached[:, nearest] = 0
    # Those that hit nothing are left out inside of crowd regions.
    crowded, _ = largest(shares_inside(found.boxes, truth.boxes), same_class & crowd)
    hit = torch.from_numpy(hits)
    return hit, torch.from_numpy(ignored) | ((crowded >= IOU) & ~hit)
