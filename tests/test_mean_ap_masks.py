"""The figures of masks: COCO's equal those of its own evaluator, VOC's the loop of Multi-task Network Cascades."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepres.detection.detection_table import DetectionTable, read_detections, write_detections
from deepres.detection.mean_ap.bootstrap import map_interval
from deepres.detection.mean_ap.coco import coco_map
from deepres.detection.mean_ap.masked import all_masked
from deepres.detection.mean_ap.voc import voc_map
from deepres.models.detection.outputs import Detections
from deepres.runtime.errors import InputError
from deepres.runtime.masks import Masks, decoded, encoded, mask_areas
from random_boxes import FIGURES, detections, truth
from random_masks import SIZE, masked_case


def dataset(parts, extra):
    annotations = [
        {"image_id": picture, "category_id": int(part.labels[i]), "iscrowd": 0, "segmentation": rle, "bbox": [0] * 4}
        | {"area": float(coco.area(rle)), **extra(part, i)}
        for picture, part in enumerate(parts)
        for i, rle in enumerate(part.masks.rles())
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    made = COCO()
    images = [{"id": picture, "height": SIZE[0], "width": SIZE[1]} for picture in range(len(parts))]
    made.dataset = {"images": images, "categories": [{"id": label} for label in range(3)], "annotations": annotations}
    made.createIndex()
    return made


def by_pycocotools(truths, found):
    """The twelve figures; -1 for no value."""
    with contextlib.redirect_stdout(io.StringIO()):
        objects = dataset(truths, lambda own, i: {"area": float(own.areas[i]), "iscrowd": int(own.crowd[i])})
        seen = dataset(found, lambda own, i: {"score": float(own.scores[i])})
        evaluator = COCOeval(objects, seen, "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats


def figures_of(result):
    return [-1 if (value := getattr(result, name)) is None else value for name in FIGURES]


def compare(seeds):
    for seed in seeds:
        truths, found = masked_case(seed, pictures=3, crowd=0.15, ties=seed % 3 == 0)
        own = figures_of(coco_map(truths, found, "abc", "masks"))
        assert own == pytest.approx(by_pycocotools(truths, found), abs=1e-12), seed


def test_forty_random_cases_of_masks_equal_pycocotools():
    compare(range(40))


@pytest.mark.long
def test_four_hundred_random_cases_of_masks_equal_pycocotools():
    compare(range(40, 440))


def by_loop(truths, found, label, iou):
    """Average precision of one class by 11 points, detection by detection, as Multi-task Network Cascades counts it."""
    rows = [
        (-float(own.scores[i]), picture, i)
        for picture, own in enumerate(found)
        for i in range(len(own))
        if own.labels[i] == label
    ]
    taken, hits = set(), []
    for _, picture, i in sorted(rows, key=lambda row: row[0]):
        mask = decoded(found[picture].masks[i : i + 1]).bool()
        places = (truths[picture].labels == label).nonzero().flatten()
        best, nearest = 0.0, None
        for place in places.tolist():
            other = decoded(truths[picture].masks[place : place + 1]).bool()
            share = float((mask & other).sum() / max((mask | other).sum(), 1))
            if share > best:
                best, nearest = share, (picture, place)
        hits.append(best >= iou and nearest not in taken)
        if best >= iou:
            taken.add(nearest)
    count = sum(int((own.labels == label).sum()) for own in truths)
    recalls = np.cumsum(hits) / max(count, 1)
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    levels = np.arange(0, 1.1, 0.1) - 1e-9
    return np.mean([max(precisions[recalls >= level], default=0) for level in levels]) if count else None


@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_average_precision_of_regions_is_that_of_the_loop(iou):
    for seed in range(15):
        truths, found = masked_case(seed, pictures=4)
        own = voc_map(truths, found, "abc", iou, "11-point", "masks")
        expected = [by_loop(truths, found, label, iou) for label in range(3)]
        assert [one.ap for one in own.classes] == pytest.approx(expected, abs=1e-9), seed


def one_picture(first, second, found):
    """Two objects and their detections, each given by the columns of the picture that it covers."""

    def mask(columns):
        pixels = torch.zeros(1, 10, 20)
        pixels[:, :, columns] = 1
        return pixels

    objects = encoded(torch.cat([mask(first), mask(second)]))
    seen = encoded(torch.cat(list(map(mask, found))))
    boxes = [(0, 0, 20, 10)]
    return (
        replace(truth(boxes * 2), masks=objects),
        replace(detections(boxes * len(found), [1 - k / 10 for k in range(len(found))]), masks=seen),
    )


def test_masks_are_compared_and_not_boxes():
    """All boxes are the whole picture: by boxes one detection hits; by masks each hits its own object."""
    own, found = one_picture(slice(0, 10), slice(10, 20), [slice(0, 9), slice(11, 20)])
    assert voc_map([own], [found], "a").map == 0.5
    assert voc_map([own], [found], "a", by="masks").map == 1
    assert coco_map([own], [found], "a", "masks").map50 == pytest.approx(1)
    assert voc_map([own], [found], "a", 0.95, by="masks").map == 0
    assert map_interval([own], [found], "a", by="masks") == (1, 1)


def test_what_is_found_where_an_object_has_no_mask_is_neither_hit_nor_miss():
    own, found = one_picture(slice(0, 10), slice(10, 20), [slice(0, 9), slice(11, 20)])
    own = replace(
        own,
        boxes=torch.tensor([(0.0, 0, 10, 10), (10, 0, 20, 10)]),
        masks=Masks.of([own.masks.texts[0], b""], own.masks.sizes.tolist()),
    )
    result = voc_map([own], [found], "a", by="masks")
    assert (result.map, result.classes[0].objects, len(result.classes[0].scores)) == (1, 1, 1)
    assert coco_map([own], [found], "a", "masks").map50 == pytest.approx(1)
    assert mask_areas(all_masked(own).masks).tolist() == [100, 100]


def test_pictures_without_objects_or_detections_count_as_they_do_for_boxes():
    own, found = one_picture(slice(0, 10), slice(10, 20), [slice(0, 10)])
    nothing, none = truth(), detections()
    result = voc_map([own, nothing, own], [found, found, none], "ab", by="masks")
    assert result.classes[0].ap == pytest.approx(1 / 4) and result.classes[1].ap is None
    assert coco_map([nothing], [none], "a", "masks").map is None


def test_boxes_without_masks_have_no_figures_of_masks():
    own, found = one_picture(slice(0, 10), slice(10, 20), [slice(0, 10)])
    with pytest.raises(ValueError, match="without masks"):
        voc_map([own], [replace(found, masks=None)], "a", by="masks")
    with pytest.raises(ValueError, match="without masks"):
        coco_map([replace(own, masks=None)], [found], "a", "masks")


# --- kept in a file ---


def table(truths, found):
    names = tuple(f"{place}.png" for place in range(len(truths)))
    return DetectionTable("data", names, tuple("abc"), tuple(truths), tuple(found), (), {"title": "test"})


def test_a_table_of_detections_keeps_the_masks(tmp_path):
    truths, found = masked_case(0, pictures=5, lacking=0.2)
    found[2] = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())  # a picture that did not decode
    write_detections(tmp_path / "a.safetensors", table(truths, found))
    again = read_detections(tmp_path / "a.safetensors")
    for own, other in zip((*truths, *found), (*again.truths, *again.found), strict=True):
        assert other.masks.texts == (own.masks.texts if own.masks is not None else [])
    same = [figures_of(coco_map(*pair, "abc", "masks")) for pair in ((truths, found), (again.truths, again.found))]
    assert same[0] == same[1]


def test_a_table_of_boxes_alone_has_no_masks_and_one_of_damaged_masks_is_refused(tmp_path):
    truths, found = masked_case(1, pictures=3)
    bare = [replace(own, masks=None) for own in truths], [replace(own, masks=None) for own in found]
    write_detections(tmp_path / "a.safetensors", table(*bare))
    assert read_detections(tmp_path / "a.safetensors").truths[0].masks is None
    masks = truths[0].masks
    wrong = replace(truths[0], masks=Masks(masks.text, masks.ends, masks.sizes + 1))
    write_detections(tmp_path / "b.safetensors", table([wrong, *truths[1:]], found))
    with pytest.raises(InputError, match="does not fit its picture"):
        read_detections(tmp_path / "b.safetensors")
