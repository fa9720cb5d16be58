"""Data of LabelMe: its shapes are objects with masks, and what is wrong in it is told."""

from pathlib import Path

import numpy as np
import pytest
import torch

import box_folders as made
from deepres.data.boxes.layouts import layout_of
from deepres.data.boxes.opening import open_boxes, opened
from deepres.runtime.errors import silent
from deepres.runtime.masks import decoded, mask_areas, mask_boxes
from mask_folders import HEIGHT, RING, TRIANGLE, WIDTH, labelme, masks_of, patch, pixels, read, shape
from random_masks import maps


def test_labelme_is_told_and_its_shapes_are_objects_with_masks(tmp_path):
    root = tmp_path / "set"
    points = np.reshape(RING, (-1, 2)).tolist()
    labelme(root, "a", shape("cat", points), shape("dog", [[30, 20], [10, 5]], "rectangle"))
    labelme(root, "bb", shape("dog", [[20, 15], [20, 25]], "circle"))
    assert layout_of(root) == "LabelMe"
    index = read(root)
    assert index.classes == ("cat", "dog") and [Path(own).stem for own in index.names] == ["a", "bb"]
    polygon, rectangle = decoded(masks_of(index))
    assert torch.equal(polygon, pixels([RING]))
    assert torch.equal(rectangle, pixels([[10, 5, 30, 5, 30, 20, 10, 20]])) and rectangle.sum() == 300
    assert index.truth(0).boxes.tolist() == [[3.5, 2, 30.25, 25], [10, 5, 30, 20]]
    assert abs(int(mask_areas(masks_of(index, 1))) - 100 * np.pi) < 10
    assert index.truth(1).boxes.round().tolist() == [[10, 5, 30, 25]]
    assert not opened(str(root), silent, test_set="none", masks=True).faults


def test_shapes_of_one_group_and_label_are_one_object(tmp_path):
    parts = [shape("cat", np.reshape(own, (-1, 2)).tolist(), group_id=1) for own in (RING, TRIANGLE)]
    other = shape("dog", np.reshape(TRIANGLE, (-1, 2)).tolist(), group_id=1)
    labelme(tmp_path / "set", "a", parts[0], other, parts[1])
    index = read(tmp_path / "set")
    cat = index.truth(0).labels.tolist().index(0)
    assert len(index.objects) == 2
    assert torch.equal(decoded(masks_of(index))[cat], pixels([RING, TRIANGLE]))
    assert index.truth(0).boxes[cat].tolist() == [3.5, 1, 39, 25]


def test_shapes_of_pixels_lie_where_their_corner_is(tmp_path):
    [own] = maps(np.random.default_rng(0), 1, (12, 9))
    own[0, 0] = own[-1, -1] = 1
    labelme(tmp_path / "set", "a", patch("cat", own.numpy(), (7, 11)))
    index = read(tmp_path / "set")
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    expected[11:23, 7:16] = own
    assert torch.equal(decoded(masks_of(index))[0], expected)
    assert torch.equal(index.truth(0).boxes, mask_boxes(masks_of(index)))


def test_what_is_wrong_in_labelme_is_told_and_the_rest_is_read(tmp_path):
    root = tmp_path / "set"
    good = shape("cat", np.reshape(RING, (-1, 2)).tolist())
    outside = patch("dog", np.ones((5, 5)), (WIDTH - 3, 2))
    labelme(root, "a", good, shape("x", [[1, 1]], "point"), shape("x", [[1, 1], [2, 2]]), shape(" ", good["points"]))
    labelme(root, "bb", good, outside, outside | {"points": [[1, 1], [5, 5]], "mask": "no base64!"})
    labelme(root, "ccc", good).write_text('{"shapes": [{"label": 7}], "imagePath": "ccc.jpg"}')
    labelme(root, "dddd", good)
    (root / "dddd.jpg").unlink()
    made.picture(root / "e.jpg")
    kinds = {own.kind: own for own in opened(str(root), silent, test_set="none", masks=True).faults}
    assert {kind: own.times for kind, own in kinds.items()} == {
        **{"object": 3, "mask": 2, "unread": 1, "missing": 1},
        **{"unannotated": 1, "outside": 1},
    }
    assert (kinds["object"].name, kinds["mask"].name, kinds["unread"].name) == ("a.json", "bb.json", "ccc.json")
    assert "a shape is a point" in kinds["object"].reason and "expected str, got int" in kinds["unread"].reason
    index = read(root)
    assert [Path(own).stem for own in index.names] == ["a", "bb"]
    assert masks_of(index, 1).known.tolist() == [True, False, False]


def test_a_damaged_file_beside_a_picture_is_named(tmp_path):
    labelme(tmp_path, "a", shape("cat", [[1, 1], [20, 20]], "rectangle"))
    labelme(tmp_path, "b").write_text("{")
    [fault] = opened(str(tmp_path), silent, test_set="none").faults
    assert (fault.name, fault.reason) == ("b.jpg", "it has no annotation: b.json is not LabelMe's")


def test_a_rectangle_may_have_four_corners_and_a_circle_two_points_alone(tmp_path):
    corners = [[10, 5], [30, 5], [30, 20], [10, 20]]
    labelme(tmp_path, "a", shape("cat", corners, "rectangle"), shape("cat", corners[:3], "circle"))
    [fault] = opened(str(tmp_path), silent, test_set="none").faults
    assert fault.reason == "a circle has 3 points"
    assert read(tmp_path).truth(0).boxes.tolist() == [[10, 5, 30, 20]]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [(np.ones((5, 5)), "a mask has 5x5 pixels, its points 9x9"), (np.zeros((9, 9)), "a mask has no pixel")],
)
def test_a_mask_that_is_empty_or_does_not_fit_its_points_is_told_and_its_object_keeps_its_box(tmp_path, pixels, reason):
    own = patch("cat", pixels, (2, 2)) | {"points": [[2, 2], [10, 10]]}
    labelme(tmp_path, "a", own, shape("cat", np.reshape(RING, (-1, 2)).tolist()))
    [fault] = opened(str(tmp_path), silent, test_set="none", masks=True).faults
    assert fault.reason == reason
    index = read(tmp_path)
    assert masks_of(index).known.tolist() == [False, True] and index.truth(0).boxes[0].tolist() == [2, 2, 11, 11]


def test_folders_of_labelme_are_its_parts_and_without_masks_it_has_boxes(tmp_path):
    for part, name in (("train", "a"), ("train", "bb"), ("test", "ccc")):
        labelme(tmp_path / part, name, shape("cat", np.reshape(RING, (-1, 2)).tolist()))
    train, test = open_boxes(str(tmp_path), silent)
    assert (len(train), len(test)) == (2, 1)
    assert train.objects.masks is None and train.objects.boxes[0].tolist() == [3.5, 2, 30.25, 25]
