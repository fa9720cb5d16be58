"""Masks that are found are drawn into pictures, and written as COCO's tools take them."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval

from deepres.commands import detect as command
from deepres.models.detection.outputs import Detections
from deepres.report import boxes, sheets
from deepres.runtime.masks import Masks, decoded, encoded, mask_boxes
from deepres.workflows.detect import Sighting, Spotter
from random_masks import SIZE, maps

CLASSES, IDS = ("ring", "disc"), (7, 3)


@pytest.fixture
def masks():
    own = maps(np.random.default_rng(0), 8)
    return encoded(own[own.sum((1, 2)) > 20][:3])


def found_in(masks: Masks) -> Detections:
    return Detections(mask_boxes(masks), torch.tensor([0.9, 0.7, 0.6]), torch.tensor([0, 1, 0]), masks)


def gray(size=SIZE) -> torch.Tensor:
    return torch.full((3, *size), 128, dtype=torch.uint8)


def written(write, found: Detections, capsys) -> str:
    spotter = Spotter(CLASSES, IDS, lambda image: found)
    files = [Path("1.png"), Path("2.png")]
    write([Sighting(str(file), SIZE, found, classes=CLASSES) for file in files], spotter, files)
    return capsys.readouterr().out


def test_masks_are_painted_in_the_colours_of_their_classes_and_nowhere_else(masks):
    """Half of it is the picture; the surest lies on top. Boxes without an extent leave a corner."""
    marks = boxes.Marks(torch.zeros(3, 4), [""] * 3, [(255, 0, 0), (0, 255, 0), (0, 0, 255)], masks)
    drawn = np.array(boxes.draw(gray(), marks)).astype(int)[5:, 5:]
    own = decoded(masks).bool().numpy()[:, 5:, 5:]
    red = own[0]
    assert red.any() and (abs(drawn[red & ~own[1] & ~own[2]] - (191, 64, 64)) <= 1).all()
    assert (drawn[~own.any(0)] == 128).all()
    covered = red & own[1]
    assert (drawn[covered][:, 0] > drawn[covered][:, 1]).all()


def test_masks_are_drawn_in_the_size_of_a_resized_picture(masks):
    marks = boxes.Marks(torch.zeros(3, 4), [""] * 3, [(255, 255, 255)] * 3, masks)
    small, large = (
        np.array(boxes.draw(gray((SIZE[0] * scale, SIZE[1] * scale)), marks))[12 * scale :, 12 * scale :, 0] > 140
        for scale in (1, 3)
    )
    assert np.array_equal(large[1::3, 1::3], small)


def test_a_mask_that_is_not_known_is_not_drawn(masks):
    none = Masks.of([b""] * 3, [SIZE] * 3)
    plain, without = (boxes.Marks(torch.zeros(3, 4), [""] * 3, [(9, 9, 9)] * 3, own) for own in (None, none))
    assert boxes.draw(gray(), plain).tobytes() == boxes.draw(gray(), without).tobytes()


def test_a_mistake_is_drawn_with_its_mask_on_top(masks):
    marks = sheets._alarmed(boxes.of_detections(found_in(masks), CLASSES), 2)
    assert marks.masks.texts == [masks.texts[place] for place in (2, 0, 1)]
    assert marks.colours == [sheets.ALARM, sheets.MUTED, sheets.MUTED]
    assert sheets.sure([found_in(masks)])[0].masks.texts == masks.texts


def test_coco_tools_take_the_masks_that_are_written(masks, capsys):
    """Detections that are the truth have a mask AP of 1."""
    from pycocotools.coco import COCO

    results = json.loads(written(command._write_coco, found_in(masks), capsys))
    assert [own["category_id"] for own in results] == [7, 3, 7] * 2
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        images = [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in (1, 2)]
        objects = [own | {"id": number, "iscrowd": 0, "area": 50} for number, own in enumerate(results, 1)]
        truth.dataset = {
            "info": {},
            "images": images,
            "categories": [{"id": own} for own in IDS],
            "annotations": objects,
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert evaluator.stats[0] == pytest.approx(1)


def test_json_lines_have_the_masks_and_detections_of_boxes_alone_have_none(masks, capsys):
    found = found_in(masks)
    first = json.loads(written(command._write_json_lines, found, capsys).splitlines()[0])
    again = Masks.of([own["mask"]["counts"].encode() for own in first["detections"]], [SIZE] * 3)
    assert torch.equal(decoded(again), decoded(masks))
    alone = Detections(found.boxes, found.scores, found.labels)
    assert "mask" not in written(command._write_json_lines, alone, capsys)
    assert "segmentation" not in written(command._write_coco, alone, capsys)
