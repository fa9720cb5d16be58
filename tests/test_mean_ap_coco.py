"""COCO's figures, against its own evaluator and by hand."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepres.detection.mean_ap.coco import coco_map
from random_boxes import FIGURES, detections, random_case, truth

SMALL, LARGE = (0, 0, 20, 20), (50, 50, 250, 250)


def dataset(parts, extra):
    """A data set of `pycocotools`; `extra` names the fields of each box beside those that all have."""
    annotations = [
        {"image_id": 7 * picture, "category_id": 10 * int(part.labels[i]), "iscrowd": 0, "id": 0, **extra(part, i)}
        | {"bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        for picture, part in enumerate(parts)
        for i, box in enumerate(part.boxes.double().tolist())
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    made = COCO()
    categories = [{"id": 10 * label} for label in range(3)]
    images = [{"id": 7 * picture} for picture in range(len(parts))]
    made.dataset = {"images": images, "categories": categories, "annotations": annotations}
    made.createIndex()
    return made


def by_pycocotools(truths, found):
    """The twelve figures, and mAP, mAP@.5, mAP@.75 and recall of each class; -1 for no value."""
    with contextlib.redirect_stdout(io.StringIO()):
        objects = dataset(truths, lambda own, i: {"area": float(own.areas[i]), "iscrowd": int(own.crowd[i])})
        seen = dataset(found, lambda own, i: {"score": float(own.scores[i])})
        evaluator = COCOeval(objects, seen, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision, recall = evaluator.eval["precision"][..., 0, -1], evaluator.eval["recall"][..., 0, -1]
    each = [
        [np.mean(part) for part in (precision[:, :, k], precision[0, :, k], precision[5, :, k], recall[:, k])]
        for k in range(3)
    ]
    return [*evaluator.stats, *np.ravel(each)]


def figures_of(result):
    each = [value for one in result.classes for value in dataclasses.astuple(one)[1:]]
    return [-1 if value is None else value for value in (*(getattr(result, name) for name in FIGURES), *each)]


def compare(seeds):
    for seed in seeds:
        truths, found = random_case(seed, pictures=3, crowd=0.15, whole=seed % 2 == 0, ties=seed % 3 == 0)
        assert figures_of(coco_map(truths, found, "abc")) == pytest.approx(by_pycocotools(truths, found), abs=1e-12), (
            seed
        )


def test_a_hundred_random_cases_equal_pycocotools():
    compare(range(100))


@pytest.mark.long
def test_nine_hundred_more_random_cases_equal_pycocotools():
    compare(range(100, 1000))


def test_perfect_detections_have_the_full_score_though_the_first_object_is_the_first_annotation():
    # To COCO's evaluator a match with the annotation 0 is none; ids that count from 0 give 0 here.
    result = coco_map([truth([SMALL])], [detections([SMALL], [0.9])], ["cell"])
    assert [result.map, result.map50, result.map75, result.small, result.recall1] == [1] * 5
    assert [result.medium, result.large, result.recall_medium, result.recall_large] == [None] * 4


def test_the_first_class_is_a_class_and_classes_without_objects_have_no_value():
    truths = [truth([SMALL, LARGE], [0, 2])]
    result = coco_map(truths, [detections([SMALL, LARGE], [0.9, 0.8], [0, 1])], ["first", "absent", "missed"])
    assert [(one.name, one.ap, one.recall) for one in result.classes] == [
        ("first", 1, 1),
        ("absent", None, None),
        ("missed", 0, 0),
    ]
    assert result.map == 0.5


def test_without_detections_the_figures_are_zero_and_without_objects_there_is_no_value():
    empty = coco_map([truth([SMALL]), truth()], [detections(), detections()], ["cell"])
    assert (empty.map, empty.map50, empty.recall100, empty.large) == (0, 0, 0, None)
    for nothing in (coco_map([truth()], [detections([SMALL], [0.9])], ["cell"]), coco_map([], [], ["cell"])):
        assert {getattr(nothing, name) for name in FIGURES} == {None}


def test_difficult_objects_are_regions_in_which_nothing_counts():
    # The first two detections are on the difficult object: as misses they would take precision. The object itself, as
    # one that counts, would be missed by the second detector.
    truths = [truth([SMALL, LARGE], difficult=[1])]
    for found in (detections([LARGE, LARGE, SMALL], [0.9, 0.8, 0.7]), detections([SMALL], [0.7])):
        assert coco_map(truths, [found], ["cell"]).map == 1


def test_nothing_is_printed_and_the_boxes_stay_as_they_are(capfd):
    truths, found = random_case(5)
    before = [one.boxes.clone() for one in (*truths, *found)]
    coco_map(truths, found, "abc")
    assert all(one.boxes.equal(old) for one, old in zip((*truths, *found), before, strict=True))
    assert capfd.readouterr() == ("", "")


def test_truths_and_detections_of_different_numbers_of_pictures_are_refused():
    with pytest.raises(ValueError):
        coco_map([truth()], [], ["cell"])
