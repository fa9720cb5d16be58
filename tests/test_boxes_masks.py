"""Masks of every layout are those that the annotation tells, are kept with the boxes, and cost nothing unasked."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import box_folders as made
import mask_folders
from deepres.data.boxes import opening as opening_module
from deepres.data.boxes.opening import open_boxes, opened
from deepres.data.rgb import TURNS
from deepres.runtime.errors import InputError, silent
from deepres.runtime.masks import decoded, encoded, mask_areas
from mask_folders import HEIGHT, RING, TRIANGLE, WIDTH, faults, masks_of, pixels, read
from random_masks import maps


def lengths_of(own: torch.Tensor) -> list[int]:
    """Run lengths of a mask, as numbers."""
    flat = own.T.reshape(-1).numpy()
    return np.diff([0, *np.flatnonzero(np.diff(flat, prepend=0)).tolist(), len(flat)]).tolist()


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def coco_set(tmp_path, random) -> tuple[Path, list[torch.Tensor]]:
    """COCO with an object of polygons, a crowd of run lengths, one of compressed run lengths, and their masks."""
    root = tmp_path / "set"
    crowd, other = maps(random, 2, (HEIGHT, WIDTH))
    text = encoded(other[None]).texts[0].decode()
    size = [HEIGHT, WIDTH]
    objects = {
        "a.jpg": [("cat", [RING, TRIANGLE], 0), ("dog", {"counts": lengths_of(crowd), "size": size}, 1)],
        "b.jpg": [("dog", {"counts": text, "size": size}, 0)],
        "c.jpg": [],
    }
    for seed, name in enumerate(objects):
        made.picture(root / "train" / name, seed)
    mask_folders.coco_json(root / "annotations" / "instances_train.json", objects)
    return root, [pixels([RING, TRIANGLE]), crowd, other]


# --- COCO ---


def test_polygons_and_run_lengths_of_coco_give_the_masks_of_pycocotools(coco_set):
    root, expected = coco_set
    index = read(root)
    assert torch.equal(decoded(masks_of(index, 0)), torch.stack(expected[:2]))
    assert torch.equal(decoded(masks_of(index, 1)), expected[2][None])
    assert len(masks_of(index, 2)) == 0
    assert index.truth(0).crowd.tolist() == [False, True]
    assert not faults(root)


def test_the_area_of_an_object_is_that_of_its_mask_where_the_annotation_tells_none(coco_set):
    root, expected = coco_set
    assert read(root).objects.areas.tolist() == [own.sum() for own in expected]
    file = root / "annotations" / "instances_train.json"
    stored = json.loads(file.read_text())
    stored["annotations"][0]["area"] = 77
    file.write_text(json.dumps(stored))
    assert read(root).objects.areas.tolist() == [77, *(own.sum() for own in expected[1:])]


def test_masks_are_kept_in_the_index_and_not_made_again(coco_set, monkeypatch):
    root, _ = coco_set
    first = read(root)

    def fail(*_):
        raise AssertionError("the index is there")

    monkeypatch.setattr(opening_module, "_make", fail)
    second = read(root)
    assert second.fingerprint == first.fingerprint
    assert second.objects.masks.texts == first.objects.masks.texts
    assert torch.equal(second.objects.areas, first.objects.areas)


def test_boxes_without_masks_are_as_they_were_and_the_fingerprint_is_over_masks_only_where_they_are_read(coco_set):
    root, _ = coco_set
    plain, masked = open_boxes(str(root), silent, test_set="none").train, read(root)
    assert plain.objects.masks is None and plain.truth(0).masks is None
    assert torch.equal(plain.objects.boxes, masked.objects.boxes)
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("30.25", "28.25"))
    assert open_boxes(str(root), silent, test_set="none").train.fingerprint == plain.fingerprint
    assert read(root).fingerprint != masked.fingerprint


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 1, 5, 5]], "fewer than three corners"),
        ([[1, 1, 1e300, 5, 3, 9]], "far outside"),
        ([["a"]], "expected float, got str"),
        ("text", "expected"),
        ({"counts": [5], "size": [HEIGHT, WIDTH]}, "make 5 pixels"),
        ({"counts": [WIDTH * HEIGHT], "size": [WIDTH, HEIGHT]}, "the picture 40x30"),
        ({"counts": [10**30], "size": [HEIGHT, WIDTH]}, "the picture has 1,200"),
        ({"counts": "0\u00e9", "size": [HEIGHT, WIDTH]}, "no run lengths"),
        ({"counts": "P" * 1000, "size": [HEIGHT, WIDTH]}, "no run lengths"),
        ({"size": [HEIGHT, WIDTH]}, "counts"),
    ],
)
def test_a_mask_that_cannot_be_read_is_told_and_its_object_keeps_its_box(tmp_path, segmentation, reason):
    root = tmp_path / "set"
    made.picture(root / "a.jpg")
    mask_folders.coco_json(root / "x.json", {"a.jpg": [("cat", segmentation, 0), ("dog", [RING], 0)]})
    ((_, told, times),) = faults(root)
    assert reason in told and times == 1
    index = read(root)
    assert len(index.objects) == 2
    assert masks_of(index).known.tolist() == [False, True]


def test_a_segmentation_that_is_empty_or_not_there_is_no_fault_and_is_counted(tmp_path):
    root, said = tmp_path / "set", list[str]()
    made.picture(root / "a.jpg")
    mask_folders.coco_json(root / "x.json", {"a.jpg": [("cat", [], 0), ("cat", None, 0), ("dog", [RING], 0)]})
    file = root / "x.json"
    stored = json.loads(file.read_text())
    stored["annotations"].append({"image_id": 0, "category_id": 3, "bbox": [1, 1, 9, 9], "id": 9})
    file.write_text(json.dumps(stored))
    found = opened(str(root), said.append, test_set="none", masks=True)
    assert [own.kind for own in found.wrong] == ["doubled"]
    assert masks_of(found.parts.train).known.sum() == 1
    assert any("objects without a mask: 2 of 3" in sentence for sentence in said)


def test_deeply_nested_segmentations_end_with_a_sentence_or_are_told(tmp_path):
    root = tmp_path / "set"
    made.picture(root / "a.jpg")
    mask_folders.coco_json(root / "x.json", {"a.jpg": [("cat", "DEEP", 0), ("dog", [RING], 0)]})
    text = (root / "x.json").read_text()
    (root / "x.json").write_text(text.replace('"DEEP"', "[" * 50 + "]" * 50))
    assert len(faults(root)) == 1
    (root / "x.json").write_text(text.replace('"DEEP"', "[" * 100_000 + "]" * 100_000))
    with pytest.raises(InputError, match="nested too deep"):
        read(root)


@pytest.mark.parametrize("orientation", sorted(TURNS))
def test_masks_are_turned_with_the_picture_where_they_were_made_on_the_stored_one(tmp_path, orientation):
    root = tmp_path / "set"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", made.SIZE).save(root / "a.jpg", exif=exif)
    mask_folders.coco_json(root / "x.json", {"a.jpg": [("cat", [RING], 0)]})
    stored = Image.fromarray(pixels([RING]).numpy())
    turned = np.asarray(stored.transpose(TURNS[orientation]) if orientation > 4 else stored)
    assert np.array_equal(decoded(masks_of(read(root)))[0], turned)
    assert not faults(root)


# --- VOC ---

BOXES = [(2, 3, 14, 15), (18, 8, 38, 28), (5, 18, 15, 29)]


@pytest.fixture
def voc(tmp_path) -> Path:
    """VOC with three objects in `a`, which has masks, and one in `b`, which has none."""
    return made.write_voc(tmp_path / "set", {"a": [("cat", own) for own in BOXES], "b": [("cat", BOXES[1])]})


@pytest.mark.parametrize("numbers", [(1, 2, 3), (3, 1, 2), (9, 200, 4)])
def test_the_objects_of_voc_have_the_masks_in_their_boxes_whatever_their_numbers(voc, numbers):
    shown = mask_folders.voc_masks(voc, "a", BOXES, numbers)
    index = read(voc)
    assert [Path(own).name for own in index.names] == ["a.jpg", "b.jpg"]
    assert torch.equal(
        decoded(masks_of(index)), torch.stack([torch.from_numpy(shown == own).byte() for own in numbers])
    )
    assert index.truth(0).areas.tolist() == mask_areas(masks_of(index)).tolist()
    assert masks_of(index, 1).known.tolist() == [False]
    assert not faults(voc)


def test_numbers_of_no_object_and_pictures_that_are_no_masks_are_told_and_boxes_stay(voc):
    mask_folders.voc_masks(voc, "a", [BOXES[0], (20, 2, 30, 7)], [1, 2])
    file = voc / "SegmentationObject" / "a.png"
    assert faults(voc) == [("SegmentationObject/a.png", "a number of it belongs to no object by its box", 1)]
    assert masks_of(read(voc)).known.tolist() == [True, False, False]
    Image.new("RGB", made.SIZE).save(file)
    assert "colours" in faults(voc)[0][1]
    file.write_bytes(b"no picture")
    assert "not a picture" in faults(voc)[0][1]
    Image.new("L", (HEIGHT, WIDTH), 1).save(file)
    assert len(read(voc).objects) == 4 and not masks_of(read(voc)).known.any()


def test_a_mask_of_another_size_than_the_picture_is_told(voc):
    shown = mask_folders.voc_masks(voc, "a", BOXES, [1, 2, 3])
    Image.fromarray(np.pad(shown, ((0, 2), (0, 0)))).save(voc / "SegmentationObject" / "a.png")
    ((name, reason, times),) = faults(voc)
    assert (name, times) == ("Annotations/a.xml", 3) and "40x32 pixels, the picture 40x30" in reason


def test_masks_of_voc_are_trained_on_by_the_lists_of_segmentation(voc):
    mask_folders.voc_masks(voc, "a", BOXES, [1, 2, 3])
    for folder, sets in (
        ("Main", {"trainval": "a\nb\n", "test": "b\n"}),
        ("Segmentation", {"train": "a\n", "val": "b\n"}),
    ):
        for name, text in sets.items():
            file = voc / "ImageSets" / folder / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    train, test = open_boxes(str(voc), silent, masks=True)
    assert [[Path(own).stem for own in part.names] for part in (train, test)] == [["a"], ["b"]]
    train, test = open_boxes(str(voc), silent)
    assert [[Path(own).stem for own in part.names] for part in (train, test)] == [["a"], ["b"]]
    assert open_boxes(str(voc), silent, train_set="trainval", test_set="none").train.objects.masks is None
    assert len(open_boxes(str(voc), silent, train_set="trainval", test_set="none").train) == 2


def test_data_without_masks_have_none_when_they_are_asked_for_and_share_the_index(voc, monkeypatch):
    plain = open_boxes(str(voc), silent, test_set="none").train
    monkeypatch.setattr(opening_module, "_make", None)
    asked = read(voc)
    assert asked.objects.masks is None and asked.fingerprint == plain.fingerprint


# --- the command line ---


def test_data_info_and_check_tell_of_masks(deepres, coco_set):
    root, _ = coco_set
    said = deepres("data", "info", root, "--test-set", "none")
    assert said.returncode == 0, said.stderr
    assert any("masks" in line and "3" in line for line in said.stdout.splitlines())
    assert json.loads(deepres("data", "info", root, "--test-set", "none", "--json").stdout)["train"]["masks"] == 3
    said = deepres("data", "check", root, "--test-set", "none", "--workers", 0)
    assert said.returncode == 0 and "3 and 0 masks" in said.stderr
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace("30.25", "1e200"))
    said = deepres("data", "check", root, "--workers", 0)
    assert said.returncode == 1
    assert "a polygon has corners far outside of the picture" in said.stdout


def test_data_info_of_boxes_alone_tells_of_no_masks(deepres, voc):
    said = deepres("data", "info", voc, "--json")
    assert "masks" not in json.loads(said.stdout)["train"]


def test_a_truth_is_replaced_with_its_masks(coco_set):
    truth = read(coco_set[0]).truth(0)
    assert replace(truth, labels=truth.labels + 1).masks is truth.masks
