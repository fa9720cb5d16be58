"""Mean average precision by the rules of COCO, as faster-coco-eval counts it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.masked import By, all_masked, masks_of
from deepres.models.detection.outputs import Detections
from deepres.runtime.masks import mask_areas

AREAS = ("all", "small", "medium", "large")  # small is below 32 x 32 pixels, large above 96 x 96
MOST = (1, 10, 100)  # detections a picture and class


@dataclass(frozen=True)
class CocoClass:
    """The figures of one class, from 0 to 1; None where it has no counted object.

    `ap` is the mean over the IoU 0.5, 0.55, ..., 0.95; `recall` is the largest recall with 100 detections, over these.
    """

    name: str
    ap: float | None
    ap50: float | None
    ap75: float | None
    recall: float | None


@dataclass(frozen=True)
class CocoResult:
    """COCO's twelve figures, from 0 to 1, and those of each class. None where there is no object to count.

    `map` is mAP@[.5,.95], `map50` mAP@.5, `map75` mAP@.75; `small`, `medium` and `large` are mAP@[.5,.95] of objects by
    area. `recall1`, `recall10` and `recall100` are the average recall with so many detections a picture and class,
    `recall_small`, `recall_medium` and `recall_large` that with 100 of objects by area.
    """

    map: float | None
    map50: float | None
    map75: float | None
    small: float | None
    medium: float | None
    large: float | None
    recall1: float | None
    recall10: float | None
    recall100: float | None
    recall_small: float | None
    recall_medium: float | None
    recall_large: float | None
    classes: tuple[CocoClass, ...]


def coco_map(
    truths: Sequence[Truth], found: Sequence[Detections], classes: Sequence[str], by: By = "boxes"
) -> CocoResult:
    """COCO's figures over all pictures; `truths[i]` and `found[i]` are of the same picture.

    Crowd regions are ignored as COCO does: a detection that hits no object is left out where the share of its area
    that lies inside such a region reaches the IoU. Difficult objects, which COCO does not have, are such regions, too.
    Objects are small, medium or large by `Truth.areas`, detections by their boxes, or by masks by these. By masks, the
    IoU is that of the masks, and objects without one are difficult. Raises `ValueError` where `truths` and `found`
    differ in length.
    """
    truths = list(map(all_masked, truths)) if by == "masks" else truths
    precisions, recalls = _evaluated(truths, found, len(classes), by)
    # Both are by IoU, class, area and number of detections, precisions also by recall behind the IoU.
    every = precisions[..., -1]
    by_area = [_mean(every[..., area]) for area in range(1, len(AREAS))]
    recall_by_area = [_mean(recalls[:, :, area, -1]) for area in range(1, len(AREAS))]
    return CocoResult(
        *_at(every[..., 0]),
        *by_area,
        *(_mean(recalls[:, :, 0, most]) for most in range(len(MOST))),
        *recall_by_area,
        classes=tuple(
            CocoClass(name, *_at(every[:, :, [label], 0]), _mean(recalls[:, label, 0, -1]))
            for label, name in enumerate(classes)
        ),
    )


def _evaluated(
    truths: Sequence[Truth], found: Sequence[Detections], classes: int, by: By
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (IoU, recall, class, area, detections) and recall (IoU, class, area, detections), -1 for no value."""
    from faster_coco_eval import COCO, COCOeval_faster

    # Ids count from 1: to the evaluator, an annotation of id 0 is no match.
    images: list[dict[str, Any]] = [{"id": place + 1} for place in range(len(truths))]
    categories: list[dict[str, Any]] = [{"id": label + 1, "name": str(label)} for label in range(classes)]
    objects, detections = list[dict[str, Any]](), list[dict[str, Any]]()
    for place, (truth, own) in enumerate(zip(truths, found, strict=True), 1):
        more, more_found = dict[str, Sequence[Any]](), dict[str, Sequence[Any]]()
        if by == "masks":
            more, more_found = _masks(images[place - 1], truth), _masks(images[place - 1], own)
            more_found["area"] = mask_areas(masks_of(own)).tolist()
        ignored = (truth.crowd | truth.difficult).tolist()
        more |= {"area": truth.areas.tolist(), "iscrowd": ignored}
        objects += _annotations(place, truth, len(objects), **more)
        detections += _annotations(place, own, len(detections), score=own.scores.tolist(), **more_found)
    both = [{"images": images, "categories": categories, "annotations": some} for some in (objects, detections)]
    evaluator = COCOeval_faster(*(COCO(one) for one in both), iouType="segm" if by == "masks" else "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def _annotations(place: int, one: Truth | Detections, before: int, **fields: Sequence[Any]) -> list[dict[str, Any]]:
    """The boxes of a picture as COCO writes them, numbered on from `before`, with more fields of each."""
    boxes = one.boxes.cpu().double()
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), one.labels.tolist(), boxes[:, 2:].prod(1).tolist(), *fields.values(), strict=True)
    return [
        {"id": before + index, "image_id": place, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0}
        | dict(zip(fields, more, strict=True))
        for index, (box, label, area, *more) in enumerate(rows, 1)
    ]


def _masks(image: dict[str, Any], one: Truth | Detections) -> dict[str, Sequence[Any]]:
    """The masks as COCO writes them; `image` gets the size of its picture."""
    rles = masks_of(one).rles()
    for rle in rles:
        image["height"], image["width"] = rle["size"]
    return {"segmentation": rles}


def _at(precisions: NDArray[np.float64]) -> tuple[float | None, float | None, float | None]:
    """The mean of precisions (IoU, recall, class) over all IoU, and those at 0.5 and 0.75."""
    return _mean(precisions), _mean(precisions[0]), _mean(precisions[5])


def _mean(values: NDArray[np.float64]) -> float | None:
    present = values[values > -1]
    return float(present.mean()) if present.size else None
