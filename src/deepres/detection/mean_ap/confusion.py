"""Which class a detector takes the objects of each class for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.matching import overlaps_of, shares_inside
from deepres.models.detection.outputs import Detections


def confusion_matrix(
    truths: Sequence[Truth], found: Sequence[Detections], classes: int, score: float = 0.5, iou: float = 0.5
) -> Tensor:
    """Counts int64 (classes + 1, classes + 1) of the detections with at least this score: row the true class, column
    the detected one.

    The last column counts missed objects, the last row false alarms; their corner is 0. An object and a detection are a
    pair where their IoU is at least `iou`, each in one pair at most: first pairs of one class, then those of two
    classes; among these by falling score, then by falling IoU. Difficult objects and crowd regions do not count, nor do
    detections without a pair that lie on one of these. Raises `ValueError` where `truths` and `found` differ in length.
    """
    counts = torch.zeros((classes + 1) ** 2, dtype=torch.int64)
    for truth, own in zip(truths, found, strict=True):
        kept = own.scores >= score
        true, seen = _pairs(truth, own.boxes[kept].cpu(), own.labels[kept].cpu(), classes, iou)
        counts += (true * (classes + 1) + seen).bincount(minlength=len(counts))
    return counts.view(classes + 1, classes + 1)


def _pairs(truth: Truth, boxes: Tensor, labels: Tensor, classes: int, iou: float) -> tuple[Tensor, Tensor]:
    """True and detected class of each pair, missed object and false alarm of one picture; `classes` is for none."""
    true, ignored = truth.labels.cpu(), (truth.difficult | truth.crowd).cpu()
    overlaps = overlaps_of(boxes, truth.boxes)
    # All pairs that are allowed, the preferred ones first. Detections come by falling score already.
    near = (overlaps >= iou) & ~ignored
    rows, columns = near.nonzero(as_tuple=True)
    other = (labels[rows] != true[columns]).tolist()
    wanted = sorted(zip(other, rows.tolist(), (-overlaps[near]).tolist(), columns.tolist(), strict=True))
    # Each detection and each object is taken once.
    detection_of, object_of = dict[int, int](), dict[int, int]()
    for _, row, _, column in wanted:
        if row not in object_of and column not in detection_of:
            object_of[row], detection_of[column] = column, row
    # What is left is missed or a false alarm, but for what lies on something ignored.
    on_ignored = ((overlaps >= iou) & truth.difficult.cpu()) | (
        (shares_inside(boxes, truth.boxes) >= iou) & truth.crowd.cpu()
    )
    alone = {row for row, on in enumerate(on_ignored.any(1).tolist()) if not on} - object_of.keys()
    missed = {column for column, out in enumerate(ignored.tolist()) if not out} - detection_of.keys()
    pairs = [(int(true[column]), int(labels[row])) for row, column in object_of.items()]
    pairs += [(int(true[column]), classes) for column in missed] + [(classes, int(labels[row])) for row in alone]
    true, seen = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(1)
    return true, seen
