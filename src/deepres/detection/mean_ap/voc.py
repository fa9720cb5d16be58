"""Mean average precision by the rules of the PASCAL VOC development kit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.masked import By, all_masked
from deepres.detection.mean_ap.matching import nearest
from deepres.models.detection.outputs import Detections

Rule = Literal["11-point", "area"]  # of VOC 2007, and of VOC 2010 and later


@dataclass(frozen=True, eq=False)
class Judged:
    """The d detections of all pictures that count, by falling score; those with equal scores keep their order.

    `scores` float32, `labels` int64, `pictures` int64 (the place of the picture) and `hits` bool are (d,). A detection
    that is no hit is a miss; those of difficult objects and of crowd regions are left out. `objects` int64
    (pictures, classes) counts the objects that are neither difficult nor crowd.
    """

    scores: Tensor
    labels: Tensor
    pictures: Tensor
    hits: Tensor
    objects: Tensor


@dataclass(frozen=True, eq=False)
class VocClass:
    """The figures of one class.

    `ap` is the average precision from 0 to 1, None where the class has no counted object. The precision-recall curve
    has a point for each counted detection by falling score: `recalls`, `precisions` and `scores`, float64 (d,). The
    recalls are nan where there is no counted object.
    """

    name: str
    objects: int
    ap: float | None
    recalls: Tensor
    precisions: Tensor
    scores: Tensor


@dataclass(frozen=True, eq=False)
class VocResult:
    """The figures of all classes, in the order of the classes, at one IoU and by one rule."""

    classes: tuple[VocClass, ...]
    iou: float
    rule: Rule

    @property
    def map(self) -> float | None:
        """The mean of the classes' average precision, from 0 to 1; None where no class has a counted object."""
        return mean_of([one.ap for one in self.classes])


def voc_map(
    truths: Sequence[Truth],
    found: Sequence[Detections],
    classes: Sequence[str],
    iou: float = 0.5,
    rule: Rule = "area",
    by: By = "boxes",
) -> VocResult:
    """The average precision of each class over all pictures; `truths[i]` and `found[i]` are of the same picture.

    The rules are those of the development kit. A detection belongs to the object of its class with the largest IoU in
    its picture. It is a hit where that is at least `iou` and no detection with a higher score has hit the same object;
    a second detection of one object is a miss. Detections that belong to a difficult object are neither hit nor miss,
    and difficult objects do not count in the recall. Crowd regions, which VOC does not have, are treated alike: a
    detection that hits nothing is left out where the share `iou` of its area lies inside such a region of its class.
    By masks it is the mAP^r of segmented objects: the IoU is that of the masks, and objects without one are difficult;
    Multi-task Network Cascades counts it by 11 points at the IoU 0.5 and 0.7. Raises `ValueError` where `truths` and
    `found` differ in length.
    """
    judged = judge(truths, found, len(classes), iou, by)
    figures = [_class(judged, label, name, rule) for label, name in enumerate(classes)]
    return VocResult(tuple(figures), iou, rule)


def judge(
    truths: Sequence[Truth], found: Sequence[Detections], classes: int, iou: float = 0.5, by: By = "boxes"
) -> Judged:
    """Which detections are hits and which are misses, by the rules of `voc_map`."""
    truths = list(map(all_masked, truths)) if by == "masks" else truths
    # The object of each detection, by its place among the objects of all pictures.
    pairs = list(zip(truths, found, strict=True))
    sizes = torch.tensor([len(truth) for truth in truths], dtype=torch.int64)
    first = sizes.cumsum(0) - sizes
    near = [nearest(truth, own, by) for truth, own in pairs]
    pictures = torch.arange(len(found)).repeat_interleave(torch.tensor([len(own) for own in found], dtype=torch.int64))
    places = _joined([one.places for one in near], torch.int64) + first[pictures]
    reached = _joined([one.overlaps for one in near], torch.float64) >= iou
    crowded = _joined([one.crowded for one in near], torch.float64) >= iou
    labels = _joined([own.labels for own in found], torch.int64)
    # Detections of difficult objects and inside of crowd regions do not count.
    ignored, difficult = crowded & ~reached, _joined([truth.difficult for truth in truths], torch.bool)
    ignored[reached] = difficult[places[reached]]
    # By falling score, the first detection that reaches an object is its hit.
    scores, order = _joined([own.scores for own in found], torch.float32).sort(descending=True, stable=True)
    order, scores = order[~ignored[order]], scores[~ignored[order]]
    ranks, reached, places = torch.arange(len(order)), reached[order], places[order]
    firsts = torch.full((int(sizes.sum()),), len(order)).scatter_reduce(0, places[reached], ranks[reached], "amin")
    hits = reached.clone()
    hits[reached] = firsts[places[reached]] == ranks[reached]
    # The objects that count.
    counted = ~(difficult | _joined([truth.crowd for truth in truths], torch.bool))
    own = torch.arange(len(truths)).repeat_interleave(sizes)[counted]
    kinds = own * classes + _joined([truth.labels for truth in truths], torch.int64)[counted]
    objects = kinds.bincount(minlength=len(truths) * classes).view(len(truths), classes)
    return Judged(scores, labels[order], pictures[order], hits, objects)


def average_precision(hits: Tensor, objects: int, rule: Rule = "area") -> float | None:
    """The average precision of one class, from 0 to 1; None for a class without `objects`.

    `hits` bool (d,) are the counted detections by falling score. By area (VOC 2010 and later) it is the area under the
    precision-recall curve, whose precision is made to fall: at each recall the largest one at that recall or a higher
    one. By 11 points (VOC 2007) it is the mean of these precisions at the recalls 0, 0.1, ..., 1.
    """
    if not objects:
        return None
    recalls, precisions = precision_recall(hits, objects)
    largest, _ = falling(precisions)
    if rule == "area":
        return float(largest[hits].sum()) / objects  # each hit moves the recall by 1 / objects
    levels = torch.arange(11, dtype=torch.float64) / 10
    padded = torch.cat((largest, largest.new_zeros(1)))  # a recall that is not reached has precision 0
    return float(padded[torch.searchsorted(recalls, levels)].mean())


def precision_recall(hits: Tensor, objects: int) -> tuple[Tensor, Tensor]:
    """Recall and precision after each of the detections `hits` bool (d,) by falling score, float64 (d,)."""
    found = hits.cumsum(0).double()
    return found / objects, found / torch.arange(1, len(hits) + 1)


def falling(precisions: Tensor) -> tuple[Tensor, Tensor]:
    """The largest precision from each detection on, and the detection that has it, (d,) each."""
    values, places = precisions.flip(0).cummax(0)
    return values.flip(0), len(precisions) - 1 - places.flip(0)


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of those that are a value; None where none is."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _class(judged: Judged, label: int, name: str, rule: Rule) -> VocClass:
    own = judged.labels == label
    hits, objects = judged.hits[own], int(judged.objects[:, label].sum())
    recalls, precisions = precision_recall(hits, objects)
    ap = average_precision(hits, objects, rule)
    return VocClass(name, objects, ap, recalls, precisions, judged.scores[own].double())


def _joined(parts: Sequence[Tensor], kind: torch.dtype) -> Tensor:
    """The parts as one tensor on the processor, also where there are none."""
    return torch.cat([torch.empty(0, dtype=kind), *(part.cpu().to(kind) for part in parts)])
