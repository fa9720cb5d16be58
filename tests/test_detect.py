"""A detector in a user's hands: `deepres detect`, through the real command line."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from deepres import build
from deepres.data.boxes.truth import Truth
from deepres.models.detection.outputs import Detections
from deepres.report import boxes
from deepres.weights.file import serialise
from detector_files import CLASSES, write_detector, write_picture

EDGES = ("left", "top", "right", "bottom")
ROTATED = 0x0112, 6  # the tag of the orientation, and "turn by 90 degrees clockwise"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("weights") / "cells.safetensors", header={"category_ids": [0, 3, 90]})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    net, file = build("resnet8", 3), tmp_path_factory.mktemp("classifier") / "w.safetensors"
    file.write_bytes(serialise(net.state_dict(), torch.full((3, 32, 32), 0.4), net.header))
    return file


@pytest.fixture
def folder(tmp_path):
    for number, size in enumerate([(90, 60), (60, 90), (64, 64)]):
        write_picture(tmp_path / "pictures" / ("sub" if number == 2 else "") / f"{number}.png", size, number)
    return tmp_path / "pictures"


def lines(result):
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def opened(file):
    with Image.open(file) as image:
        image.load()
        return image


def test_the_formats_say_the_same(deepres, weights, folder):
    every = ("detect", weights, folder, "--threshold", 0)
    told = lines(deepres(*every, "--format", "jsonl"))
    assert [(Path(one["picture"]).name, one["width"], one["height"]) for one in told] == [
        ("0.png", 90, 60),
        ("1.png", 60, 90),
        ("2.png", 64, 64),
    ]
    flat = [(one["picture"], each["class"], each["score"], each["box"]) for one in told for each in one["detections"]]
    assert len(flat) == 18 and {name for _, name, _, _ in flat} <= set(CLASSES)
    # CSV has a row for each; a name that a spreadsheet would compute is marked.
    rows = list(csv.DictReader(io.StringIO(deepres(*every, "--format", "csv").stdout)))
    read = [
        (row["picture"], row["class"].removeprefix("'"), float(row["score"]), [float(row[edge]) for edge in EDGES])
        for row in rows
    ]
    assert read == flat
    # COCO has x, y, width, height, and the category ids of the training data.
    found = json.loads(deepres(*every, "--format", "coco").stdout)
    ids = dict(zip(CLASSES, (0, 3, 90), strict=True))
    assert [(one["file_name"], one["category_id"], one["score"]) for one in found] == [
        (picture, ids[name], score) for picture, name, score, _ in flat
    ]
    for one, (_, _, _, (left, top, right, bottom)) in zip(found, flat, strict=True):
        assert one["bbox"] == pytest.approx([left, top, right - left, bottom - top], abs=2e-3)
    # The table has them in words.
    table = deepres(*every).stdout
    assert all(f"{100 * score:.2f}" in table and f"{box[0]:.1f}" in table for _, _, score, box in flat)


def test_boxes_lie_inside_the_picture_and_come_by_falling_score(deepres, weights, folder):
    for one in lines(deepres("detect", weights, folder, "--threshold", 0, "--format", "jsonl")):
        found = one["detections"]
        assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
        for left, top, right, bottom in (each["box"] for each in found):
            assert 0 <= left < right <= one["width"] and 0 <= top < bottom <= one["height"]


def test_coco_tools_take_the_results(deepres, weights, folder, tmp_path):
    for number, name in enumerate(("000000000139.png", "000000000007.png")):
        write_picture(tmp_path / "coco" / name, seed=number)
    found = deepres("detect", weights, tmp_path / "coco", "--format", "coco", "--threshold", 0).stdout
    (tmp_path / "found.json").write_text(found)
    truth = COCO()
    truth.dataset = {"images": [{"id": 7}, {"id": 139}], "categories": [{"id": own} for own in (0, 3, 90)]}
    truth.dataset |= {"annotations": [], "info": {}}
    truth.createIndex()
    own = truth.loadRes(str(tmp_path / "found.json"))
    assert len(own.getAnnIds(imgIds=[139])) == len(own.getAnnIds(imgIds=[7])) == 6
    # Names that are no numbers have no such meaning.
    plain = json.loads(deepres("detect", weights, folder / "sub", "--format", "coco", "--threshold", 0).stdout)
    assert {one["image_id"] for one in plain} == {2}  # its name is 2.png
    write_picture(tmp_path / "coco" / "x.png")
    named = json.loads(deepres("detect", weights, tmp_path / "coco", "--format", "coco", "--threshold", 0).stdout)
    assert {(one["image_id"], Path(one["file_name"]).name) for one in named} == {
        (1, "000000000007.png"),
        (2, "000000000139.png"),
        (3, "x.png"),
    }


def test_threshold_and_number_of_boxes_are_what_is_asked_for(deepres, refused, weights, folder):
    every = ("detect", weights, folder / "0.png", "--format", "jsonl")
    (all_of_them,) = lines(deepres(*every, "--threshold", 0, "--most", 40))
    scores = [one["score"] for one in all_of_them["detections"]]
    assert 6 < len(scores) <= 40
    (best,) = lines(deepres(*every, "--threshold", 0, "--most", 3))
    assert best["detections"] == all_of_them["detections"][:3]
    (sure,) = lines(deepres(*every, "--threshold", scores[4], "--most", 40))
    assert 1 <= len(sure["detections"]) <= 5
    assert "threshold is 1.5, but must be from 0 to 1" in refused(*every, "--threshold", 1.5)
    assert "most is 0, but must be from 1" in refused(*every, "--most", 0)


def test_pictures_in_which_nothing_is_found_are_told(deepres, weights, folder, tmp_path):
    result = deepres("detect", weights, folder, "--threshold", 0.99, "--draw", "drawn", "--format", "coco")
    assert result.returncode == 0 and json.loads(result.stdout) == []
    assert "nothing found with a score of 0.99 or more in 3 pictures" in result.stderr
    drawn, own = (np.array(Image.open(place / "0.png")) for place in (tmp_path / "drawn", folder))
    assert (drawn == own).all()


def test_boxes_of_a_rotated_picture_are_those_of_the_upright_one(deepres, weights, tmp_path):
    upright = opened(write_picture(tmp_path / "plain.png", (90, 60)))
    exif = Image.Exif()
    exif[ROTATED[0]] = ROTATED[1]
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "marked.png", exif=exif)
    assert opened(tmp_path / "marked.png").size == (60, 90)
    plain, marked = (
        lines(deepres("detect", weights, f"{name}.png", "--threshold", 0, "--format", "jsonl", "--draw", name))[0]
        for name in ("plain", "marked")
    )
    assert marked | {"picture": "plain.png"} == plain
    assert opened(tmp_path / "marked" / "marked.png").size == (90, 60)


def test_bad_files_are_reported_and_left_out_and_the_exit_code_is_1(deepres, weights, folder, tmp_path):
    good = folder / "0.png"
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-400])
    result = deepres("detect", weights, "cut.png", good, "missing.jpg", "--format", "jsonl", "--threshold", 0)
    assert result.returncode == 1
    assert [json.loads(line)["picture"] for line in result.stdout.splitlines()] == [str(good)]
    for name, reason in (("cut.png", "truncated"), ("missing.jpg", "no such file")):
        assert any(line.startswith(name) and reason in line for line in result.stderr.splitlines()), result.stderr
    assert "left out: 2 of 3 pictures" in result.stderr


def test_file_names_are_read_from_standard_input(deepres, weights, folder, monkeypatch):
    names = [str(folder / name) for name in ("1.png", "0.png")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
    assert [one["picture"] for one in lines(deepres("detect", weights, "-", "--format", "jsonl"))] == names


def test_drawn_pictures_keep_names_and_folders(deepres, refused, weights, folder, tmp_path):
    result = deepres("detect", weights, folder, "--threshold", 0, "--draw", "drawn")
    assert result.returncode == 0, result.stderr
    assert "drawn: the pictures with their boxes, in drawn" in result.stderr
    drawn = sorted(path.relative_to(tmp_path / "drawn") for path in (tmp_path / "drawn").rglob("*.png"))
    assert [str(path) for path in drawn] == ["0.png", "1.png", "sub/2.png"]
    for path in drawn:
        before, after = (np.array(Image.open(root / path).convert("RGB")) for root in (folder, tmp_path / "drawn"))
        assert before.shape == after.shape and (before != after).any()
    # Nothing that is looked at is written over, and nothing that was drawn is looked at the next time.
    assert "lies in" in refused("detect", weights, folder, "--draw", folder / "drawn")
    assert "would be lost" in refused("detect", weights, folder / "0.png", "--draw", folder)
    assert "is a file" in refused("detect", weights, folder, "--draw", weights)


def test_other_networks_are_refused_with_the_verb_that_takes_them(refused, weights, classifier, folder):
    assert "deepres predict" in refused("detect", classifier, folder)
    assert "deepres detect" in refused("predict", weights, folder)


def test_several_weights_are_an_ensemble(deepres, refused, weights, folder, tmp_path):
    other = write_detector(tmp_path / "other.safetensors", seed=1)
    every = (folder, "--threshold", 0, "--format", "jsonl")
    one, two, both, same = (
        lines(deepres("detect", place, *every))
        for place in (weights, other, f"{weights},{other}", f"{weights},{weights}")
    )
    assert both != one and both != two and same == one
    strange = write_detector(tmp_path / "strange.safetensors", ("cat", "dog"))
    assert "cat" in refused("detect", f"{weights},{strange}", folder)
    assert "empty place" in refused("detect", f"{weights},,{other}", folder)


def test_the_test_of_the_detector_is_chosen(deepres, refused, weights, folder):
    every = ("detect", weights, folder, "--threshold", 0, "--format", "jsonl")
    plain = lines(deepres(*every))
    assert lines(deepres(*every, "--sides", 64)) == plain  # which is the network's own
    others = [lines(deepres(*every, *how)) for how in (("--sides", 48), ("--sides", "48,64,80"), ("--refine",))]
    assert all(other != plain for other in others) and others[0] != others[1]
    assert "--sides is '64;80'" in refused(*every, "--sides", "64;80")
    assert "scales are 64, 64" in refused(*every, "--sides", "64,64")


def test_damaged_weights_are_refused(refused, folder, tmp_path):
    net = build("faster-rcnn-resnet18", 2)
    state = net.state_dict() | {"score.bias": torch.full((3,), torch.nan)}
    (tmp_path / "w.safetensors").write_bytes(serialise(state, torch.zeros(3, 1, 1), net.header))
    assert "not finite" in refused("detect", "w.safetensors", folder)


def test_lines_and_letters_are_in_proportion_to_the_picture():
    def dark_share(side):
        marks = boxes.Marks(torch.tensor([[0.2, 0.3, 0.8, 0.9]]) * side, ["cell 0.90"], [(255, 255, 255)])
        return (np.array(boxes.draw(torch.full((3, side, side), 128, dtype=torch.uint8), marks)) != 128).mean()

    assert dark_share(3000) == pytest.approx(dark_share(1000), rel=0.1)


def test_a_line_covers_the_last_pixels_of_its_box_and_none_far_outside():
    picture = torch.full((3, 200, 300), 128, dtype=torch.uint8)
    drawn = np.array(boxes.draw(picture, boxes.Marks(torch.tensor([[40.0, 60.0, 120.0, 150.0]]), [""], [(0, 255, 0)])))
    green = (drawn == (0, 255, 0)).all(2)
    rows, columns = green.any(1).nonzero()[0], green.any(0).nonzero()[0]
    assert (columns[0], columns[-1]) == (40, 119) and rows[-1] == 149


@pytest.mark.parametrize("box", [[-9.0, -9.0, 900.0, 900.0], [10.2, 10.2, 10.3, 10.3], [299.9, 199.9, 300.0, 200.0]])
def test_boxes_at_the_border_and_of_a_part_of_a_pixel_are_drawn(box):
    picture = torch.full((1, 200, 300), 128, dtype=torch.uint8)
    drawn = boxes.draw(picture, boxes.Marks(torch.tensor([box]), ["x" * 300], [(0, 255, 0)]))
    assert drawn.size == (300, 200) and (np.array(drawn) != 128).any()


def test_classes_keep_their_colours_and_neighbours_differ():
    colours = [boxes.colour_of(label) for label in range(80)]
    assert len(set(colours)) == 80
    assert all(0.2126 * r + 0.7152 * g + 0.0722 * b > 90 for r, g, b in colours)  # black letters are read on them
    found = Detections(torch.zeros(2, 4), torch.tensor([0.9, 0.8]), torch.tensor([1, 0]))
    assert boxes.of_detections(found, CLASSES).colours == colours[1::-1]


def test_difficult_objects_and_crowds_are_told_apart():
    flags = torch.tensor([[False, True, False], [False, False, True]])
    truth = Truth(torch.zeros(3, 4), torch.tensor([0, 1, 1]), *flags, torch.zeros(3))
    assert boxes.of_truth(truth, CLASSES).texts == ["ring", "disc (difficult)", "disc (crowd)"]
