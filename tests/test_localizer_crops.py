"""Crops and regions that a localizer is trained on, and the way back from views to the picture."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from box_folders import picture, voc_object, voc_xml, write_voc
from deepres.classification.views import Protocol as Views
from deepres.data.boxes.one_class import of_one_class
from deepres.data.boxes.opening import open_boxes
from deepres.localization.crops import Cropping, Target, random_crop, random_region, solid, stacked, warped, within
from deepres.localization.recipe import LocalizationConfig
from deepres.localization.source import open_pictures
from deepres.localization.views import views_of
from deepres.workflows.configure import default_name

HOW = Cropping(crop=64, sides=(80, 120), visible=0.25, positive_share=0.25)
SIZE = (200, 150)
BOX = (60, 40, 120, 100)


def encoded(size: tuple[int, int] = SIZE, box: tuple[int, int, int, int] = BOX, form: str = "PNG") -> bytes:
    """A black picture with a white box."""
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def target(size=SIZE, box=BOX, regions=None) -> Target:
    boxes = torch.tensor([box], dtype=torch.float32)
    return Target(boxes, size, 1, None if regions is None else torch.tensor(regions, dtype=torch.float32))


def bright(image: torch.Tensor) -> list[float]:
    """The box around the bright pixels of an image."""
    rows, columns = (image[0] > 127).nonzero().unbind(1)
    return [float(value) for value in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


@pytest.mark.parametrize("draws", np.random.default_rng(0).random((12, 7)).tolist())
def test_the_box_of_a_crop_is_around_the_object_in_it(draws):
    seen = random_crop(HOW, encoded(), draws, target())
    assert seen.image.shape == (3, 64, 64)
    if len(seen.boxes):
        clipped = seen.boxes[0].clamp(0, 64).tolist()
        assert bright(seen.image) == pytest.approx(clipped, abs=1.01)


def test_the_box_is_right_in_a_jpeg_that_is_decoded_at_a_fraction_of_its_size():
    size, box = (1600, 1200), (480, 320, 960, 800)
    seen = random_crop(HOW, encoded(size, box, "JPEG"), [0.1, 0.4, 0.3, 0.9, 0, 0, 0], target(size, box))
    assert bright(seen.image) == pytest.approx(seen.boxes[0].clamp(0, 64).tolist(), abs=1.01)


def test_a_box_reaches_out_of_its_crop_and_is_left_out_where_little_of_it_is_seen():
    # The object lies at the left of the picture; crops go from its left end to the right one.
    wide, box = (400, 80), (0, 0, 80, 80)
    found = [
        random_crop(HOW, encoded(wide, box), [0, 0.5, column, 0.9, 0, 0, 0], target(wide, box)).boxes
        for column in (0.0, 0.1, 0.19, 0.9)
    ]
    assert [len(own) for own in found] == [1, 1, 0, 0]
    assert found[1][0, 0] < 0


def test_regions_are_on_the_object_in_the_asked_share_and_warped_to_a_square():
    beside, on = [0, 0, 40, 30], [62, 42, 120, 100]
    picture, own = encoded(), target(regions=[beside, on])
    every = [random_region(HOW, picture, draws, own) for draws in np.random.default_rng(0).random((200, 7)).tolist()]
    positive = [float(seen.image.float().mean()) > 127 for seen in every]
    assert 0.15 < np.mean(positive) < 0.35
    for seen, is_on in zip(every, positive, strict=True):
        assert seen.image.shape == (3, 64, 64)
        if is_on:
            assert bright(seen.image) == pytest.approx(seen.boxes[0].clamp(0, 64).tolist(), abs=2)


def test_without_proposals_the_true_box_itself_is_the_region():
    own = target()._replace(regions=torch.zeros(0, 4))
    seen = random_region(HOW, encoded(), [0.9, 0.5, 0, 0.9, 0, 0, 0], own)
    assert seen.boxes.tolist() == [[0, 0, 64, 64]]


def test_a_flipped_crop_has_flipped_boxes():
    draws = [0.3, 0.4, 0.5, 0.9, 0, 0, 0]
    plain = random_crop(HOW, encoded(), draws, target())
    flipped = random_crop(HOW, encoded(), [*draws[:3], 0.1, 0, 0, 0], target())
    assert torch.equal(flipped.image, plain.image.flip(-1))
    left, top, right, bottom = plain.boxes[0].tolist()
    assert flipped.boxes[0].tolist() == pytest.approx([64 - right, top, 64 - left, bottom])


def test_a_batch_fills_up_boxes_with_rows_of_zeros():
    one = random_crop(HOW, encoded(), [0.3, 0.4, 0.5, 0.9, 0, 0, 0], target())
    none = one._replace(boxes=one.boxes[:0])
    batch = stacked([one, none])
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.boxes.tolist() == [one.boxes.tolist(), [[0, 0, 0, 0]]]
    assert stacked([none]).boxes.shape == (1, 1, 4)


@pytest.mark.parametrize("protocol", [Views("center"), Views("dense", (64, 96)), Views("dense", (64,), flip=False)])
@pytest.mark.parametrize("size", [SIZE, (90, 240)])
def test_boxes_of_views_come_back_to_the_picture(protocol, size):
    box = (30, 60, 70, 100)
    image = torch.from_numpy(np.array(Image.open(io.BytesIO(encoded(size, box))))).movedim(-1, 0)
    for view in views_of(image, protocol, 64):
        there = torch.tensor(bright(view.image))
        back = view.in_picture(there).tolist()
        row, column = view.corner
        pixel = size[0] / view.seen[1]
        cut_off = [max(30, column * pixel), max(60, row * pixel), 70, 100]
        assert back == pytest.approx(cut_off, abs=1.5 * pixel)


def test_a_box_of_a_view_is_cut_at_the_border_of_the_picture():
    [view] = views_of(torch.zeros(3, 100, 200, dtype=torch.uint8), Views("dense", (50,), flip=False), 64)
    assert view.in_picture(torch.tensor([[-10.0, -5, 500, 20]])).tolist() == [[0, 0, 200, 40]]


def test_within_is_the_way_from_a_picture_to_a_part_of_it():
    boxes = within(torch.tensor([[20.0, 10, 40, 30]]), torch.tensor([10.0, 10, 50, 30]), 100)
    assert boxes.tolist() == [[25, 0, 75, 100]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Pictures of one class, of one class twice, of two classes, and of none."""
    one, other = ("cat", (2, 2, 12, 12)), ("dog", (14, 4, 30, 20))
    objects = {"a": [one], "b": [one, ("cat", (20, 2, 30, 12))], "c": [one, other], "d": [], "e": [other]}
    sets = {"train": "abcd", "test": "e"}
    return write_voc(tmp_path_factory.mktemp("mixed"), objects, sets)


def test_pictures_with_several_classes_or_none_are_left_out_and_told(mixed):
    told: list[str] = []
    train = open_boxes(str(mixed), lambda message: None).train
    found = of_one_class(train, "training", told.append)
    assert [name.rpartition("/")[2] for name in found.names] == ["a.jpg", "b.jpg"]
    assert told == [
        "training pictures with objects of several classes, left out: 1 of 4 (JPEGImages/c.jpg)",
        "training pictures with no object, left out: 1 of 4 (JPEGImages/d.jpg)",
    ]


def test_the_pictures_that_stay_keep_their_objects_sizes_and_bytes(mixed):
    train = open_boxes(str(mixed), lambda message: None).train
    found = of_one_class(train, "training", lambda message: None)
    assert found.pictures.labels.tolist() == [0, 0]
    for place in range(2):
        assert found.truth(place).boxes.tolist() == train.truth(place).boxes.tolist()
        assert found.pictures.encoded(place) == train.pictures.encoded(place)
    assert found.sizes.tolist() == train.sizes[:2].tolist()
    assert found.fingerprint != train.fingerprint
    assert found.manifest.digests.tolist() == train.manifest.digests[:2].tolist()


def test_of_data_without_a_picture_of_one_class_nothing_stays(tmp_path):
    both = [("cat", (2, 2, 12, 12)), ("dog", (14, 4, 30, 20))]
    root = write_voc(tmp_path / "data", {"a": both, "b": both}, {"train": "a", "test": "b"})
    assert len(of_one_class(open_boxes(str(root), lambda message: None).train, "training", lambda message: None)) == 0


def test_the_layout_of_ilsvrcs_localization_is_read_with_synsets_as_classes(tmp_path):
    """Only some of the training pictures have boxes, and none of the test pictures."""
    root = tmp_path / "ILSVRC"
    box = voc_object("n01440764", (2, 2, 12, 12))
    for part, name, boxed in (
        ("train", "n01440764/n01440764_1", True),
        ("train", "n01440764/n01440764_2", False),
        ("train", "n01443537/n01443537_1", True),
        ("val", "ILSVRC2012_val_00000001", True),
        ("test", "ILSVRC2012_test_00000001", False),
    ):
        picture(root / "Data" / "CLS-LOC" / part / f"{name}.JPEG", seed=len(name))
        file = root / "Annotations" / "CLS-LOC" / part / f"{name}.xml"
        inside = box.replace("n01440764", name[:9]) if part == "train" else box
        if boxed:
            voc_xml(file, inside, filename=Path(name).name)  # without a suffix, as there
    lists = root / "ImageSets" / "CLS-LOC"
    lists.mkdir(parents=True)
    (lists / "train_cls.txt").write_text("n01440764/n01440764_1 1\nn01440764/n01440764_2 2\nn01443537/n01443537_1 3\n")
    (lists / "val.txt").write_text("ILSVRC2012_val_00000001 1\n")
    told: list[str] = []
    train, test = open_pictures(str(root), told.append)
    assert train.classes == ("n01440764", "n01443537")
    assert [Path(name).stem for name in train.names] == ["n01440764_1", "n01443537_1"]
    assert [Path(name).stem for name in test.names] == ["ILSVRC2012_val_00000001"]
    assert train.pictures.labels.tolist() == [0, 1]
    assert train.truth(0).boxes.tolist() == [[2, 2, 12, 12]]
    assert any("pictures without an annotation, left out: 1 (" in message for message in told)


@pytest.mark.parametrize(
    ("region", "whole"),
    [
        ([-5.0, -5, 10, 10], [0, 0, 10, 10]),
        ([30.0, 20, 500, 500], [30, 20, 40, 30]),
        ([40.0, 30, 40, 30], [39, 29, 40, 30]),
        ([7.0, 7, 7, 7], [7, 7, 8, 8]),
    ],
)
def test_a_region_has_a_pixel_within_its_picture(region, whole):
    assert solid(torch.tensor(region), (40, 30)).tolist() == whole
    assert warped(Image.new("RGB", (40, 30)), torch.tensor(region), 16).shape == (3, 16, 16)


def test_the_r_cnn_stage_of_an_rpn_has_a_run_of_another_name():
    rpn, stage = (LocalizationConfig("localizer-resnet8", "cards", rpn=run) for run in (None, "runs/rpn"))
    names = [default_name(config) for config in (rpn, stage)]
    assert names == ["localizer-resnet8-cards-seed0", "localizer-resnet8-rcnn-cards-seed0"]
