"""What became of each detection and each object, in order to show what a detector gets wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.matching import largest, nearest, overlaps_of
from deepres.models.detection.outputs import Detections

Kind = Literal["hit", "doubled", "wrong class", "badly placed", "false alarm", "missed"]
TOUCHES = 0.1  # the least IoU of a detection that is badly placed; below it is a false alarm


@dataclass(frozen=True)
class Outcome:
    """One detection, or one missed object: its picture, its kind, and the places of both in `found` and `truths`.

    `detection` and `score` are None for a missed object, `truth` is None for a false alarm. `overlap` is the IoU of
    detection and object, 0 where one of them is absent.
    """

    picture: int
    kind: Kind
    detection: int | None
    truth: int | None
    score: float | None
    overlap: float


def outcomes(
    truths: Sequence[Truth], found: Sequence[Detections], score: float = 0.5, iou: float = 0.5
) -> list[Outcome]:
    """The outcome of each detection with at least this score, by falling score, then the missed objects, largest first.

    A detection belongs to the object of its class with the largest IoU. Where that is at least `iou`, it is a hit, or
    doubled where one with a higher score has hit this object. Else it has the wrong class where it reaches `iou` with
    an object of another class, is badly placed where its IoU with its object is at least 0.1, and else is a false
    alarm. A missed object is one of which no detection is a hit, of a wrong class or badly placed. Difficult objects
    and crowd regions are never missed, and detections that belong to them have no outcome. Raises `ValueError` where
    `truths` and `found` differ in length.
    """
    detected, missed = list[Outcome](), list[tuple[float, Outcome]]()
    for picture, (truth, own) in enumerate(zip(truths, found, strict=True)):
        ends = list(_detected(picture, truth, own, score, iou))
        detected += ends
        met = {end.truth for end in ends}
        ignored = (truth.difficult | truth.crowd).tolist()
        for place, area in enumerate(truth.areas.tolist()):
            if place not in met and not ignored[place]:
                missed.append((area, Outcome(picture, "missed", None, place, None, 0.0)))
    detected.sort(key=lambda one: -(one.score or 0.0))
    missed.sort(key=lambda pair: -pair[0])
    return detected + [one for _, one in missed]


def _detected(picture: int, truth: Truth, own: Detections, score: float, iou: float) -> Iterator[Outcome]:
    """The outcomes of the detections of one picture, which come by falling score."""
    # The nearest object of each detection, of its own class and of the others.
    kept = own.scores >= score
    places = kept.nonzero().flatten().tolist()
    seen = Detections(own.boxes[kept], own.scores[kept], own.labels[kept])
    near = nearest(truth, seen)
    others = seen.labels.cpu()[:, None] != truth.labels.cpu()
    other_overlaps, other_places = largest(overlaps_of(seen.boxes, truth.boxes), others & ~truth.crowd.cpu())
    columns = (seen.scores, near.overlaps, near.places, near.crowded, other_overlaps, other_places)
    # The kind of each, the best score first.
    difficult, hit = truth.difficult.tolist(), set[int]()
    for index, *values in zip(places, *(column.tolist() for column in columns), strict=True):
        value, overlap, place, crowded, other, other_place = values
        if overlap >= iou:
            if not difficult[place]:
                yield Outcome(picture, "doubled" if place in hit else "hit", index, place, value, overlap)
                hit.add(place)
        elif crowded < iou:
            if other >= iou:
                yield Outcome(picture, "wrong class", index, other_place, value, other)
            elif overlap >= TOUCHES:
                yield Outcome(picture, "badly placed", index, place, value, overlap)
            else:
                yield Outcome(picture, "false alarm", index, None, value, 0.0)
