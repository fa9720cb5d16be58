"""ImageNet detection as ILSVRC lays it out: synsets, negative examples, doubtful classes, and val in two halves."""

import itertools
import json
from pathlib import Path

import pytest
import torch

import box_folders as made
from deepres.data.boxes.halves import halves, imbalances
from deepres.data.boxes.layouts import layout_of
from deepres.data.boxes.opening import open_boxes, opened
from deepres.detection.mean_ap.voc import voc_map
from deepres.models.detection.outputs import Detections
from deepres.runtime.errors import InputError, silent
from det_folders import SYNSETS, annotated, write_det, write_list, write_map

ACCORDION, AIRPLANE, ANT, BOTTLE = SYNSETS
BOX = (2, 3, 12, 13)
TRAIN = {
    f"ILSVRC2013_train/{ACCORDION}/{ACCORDION}_1": [(ACCORDION, BOX)],
    "ILSVRC2014_train_0000/ILSVRC2014_train_00000001": [(AIRPLANE, (0, 0, 40, 30)), (BOTTLE, BOX)],
}
VAL = {f"ILSVRC2012_val_{number:08}": [(synset, BOX)] for number, synset in enumerate([*SYNSETS] * 2, start=1)}


def stems(part):
    return sorted(Path(name).stem for name in part.names)


def det(root):
    return write_det(root, TRAIN, VAL)


def archives(root):
    """The same data as the archives of 2013 and 2014 give them."""
    for year, part, objects in ((2014, "train", TRAIN), (2013, "val", VAL)):
        annotated(root / f"ILSVRC{year}_DET_{part}", root / f"ILSVRC{year}_DET_bbox_{part}", objects)
    data = root / "ILSVRC2014_devkit" / "data"
    write_list(data / "det_lists" / "val.txt", VAL)
    write_map(data / "map_det.txt", SYNSETS)
    return root


@pytest.mark.parametrize("write", [det, archives])
def test_both_layouts_give_the_devkits_classes_and_boxes_counted_from_0(tmp_path, write):
    root = write(tmp_path / "set")
    assert layout_of(root) == "ILSVRC DET"
    train, test = open_boxes(str(root), silent, "train", "val")
    assert train.classes == ("accordion", "airplane", "ant", "water bottle") and train.category_ids == (1, 2, 3, 4)
    assert stems(train) == ["ILSVRC2014_train_00000001", f"{ACCORDION}_1"] and stems(test) == sorted(VAL)
    both = next(own for own in map(train.truth, range(2)) if len(own) == 2)
    assert both.boxes.tolist() == [[0, 0, 40, 30], [2, 3, 12, 13]] and both.labels.tolist() == [1, 3]


def test_negative_examples_are_counted_and_not_used_and_nothing_else_is_told(tmp_path):
    said = list[str]()
    assert not opened(str(det(tmp_path / "set")), said.append, "train", "val").faults
    assert any("pictures of train without annotation, which are not used: 1" in own for own in said)
    assert any("trained on train, tested on val" in own for own in said)


def test_a_box_that_ends_one_pixel_behind_the_border_is_cut_without_a_word(tmp_path):
    root = write_det(tmp_path / "set", TRAIN, {"ILSVRC2012_val_00000001": [(ANT, (5, 5, 41, 31))]})
    found = opened(str(root), silent, "train", "val")
    assert found.parts.test.objects.boxes.tolist() == [[5, 5, 40, 30]] and not found.faults


@pytest.mark.parametrize("data", [det, archives])
def test_training_set_and_first_half_are_trained_on_and_the_second_half_is_tested_on(tmp_path, data):
    said, root = list[str](), data(tmp_path / "set")
    train, test = open_boxes(str(root), said.append)
    assert "trained on train + val1, tested on val2" in " ".join(said)
    assert test.fingerprint == open_boxes(str(root), silent, "train,val1", "val2").test.fingerprint
    assert len(train) == 2 + 4 and len(test) == 4
    halved = {*stems(train)} & {*VAL}
    assert halved | {*stems(test)} == {*VAL} and not halved & {*stems(test)}
    assert sorted(test.objects.labels.tolist()) == [0, 1, 2, 3]  # each of four classes has one object in each half
    (note,) = [own for own in said if "val is divided" in own]
    assert "val1 and val2: relative imbalance of classes at most 0.0 %, median 0.0 %" in note
    assert stems(open_boxes(str(root), silent, "train", "val2").test) == stems(test)


def test_lists_of_halves_take_the_place_of_the_division(tmp_path):
    root = det(tmp_path / "set")
    names = sorted(VAL)
    for half, own in (("val1", names[:3]), ("val2", names[3:])):
        write_list(root / "ImageSets" / "DET" / f"{half}.txt", own)
    train, test = open_boxes(str(root), silent, "train+val1")
    assert len(train) == 5 and stems(test) == names[3:]
    assert stems(open_boxes(str(root), silent, "val1", "val2").train) == names[:3]


def test_a_doubtful_class_of_a_picture_is_neither_hit_nor_miss(tmp_path):
    root = det(tmp_path / "set")
    listed = root / "devkit" / "data" / "ILSVRC2015_det_validation_blacklist.txt"
    listed.write_text(f"1 {ACCORDION}\n2 {ACCORDION}\n")
    test = open_boxes(str(root), silent, "train", "val").test
    truths = [test.truth(place) for place in range(len(test))]
    assert [int((~(own.difficult | own.crowd)).sum()) for own in truths] == [0, 1, 1, 1, 1, 1, 1, 1]
    # An accordion anywhere in the first two pictures is left out, and one in the third is a miss.
    box = torch.tensor([[20.0, 15, 35, 28]])
    wrong = Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64))
    right = Detections(torch.tensor([[2.0, 3, 12, 13]]), torch.full((1,), 0.5), wrong.labels)
    nothing = Detections(box[:0], torch.ones(0), wrong.labels[:0])
    found = [wrong, wrong, nothing, nothing, right, nothing, nothing, nothing]
    assert voc_map(truths, found, test.classes).classes[0].ap == 1.0
    found[2] = wrong
    assert voc_map(truths, found, test.classes).classes[0].ap == 0.5
    listed.write_text("the first picture\n")
    with pytest.raises(InputError, match=r"blacklist.txt, line 1, is not the number of a picture of val and a synset"):
        open_boxes(str(root), silent, "train", "val")


def test_without_the_devkit_synsets_are_the_classes(tmp_path):
    root, said = det(tmp_path / "set"), list[str]()
    (root / "devkit" / "data" / "map_det.txt").unlink()
    assert open_boxes(str(root), said.append, "train", "val").train.classes == tuple(sorted(SYNSETS))
    assert any("class names are synsets" in own for own in said)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("accordion 1\n", "line 1, is not a synset, a number and a name"),
        ("n02672831 1 accordion\nn02691156 1 airplane\n", "two synsets of one number"),
    ],
)
def test_a_damaged_list_of_classes_is_one_sentence(tmp_path, text, told):
    root = det(tmp_path / "set")
    (root / "devkit" / "data" / "map_det.txt").write_text(text)
    with pytest.raises(InputError, match=told):
        open_boxes(str(root), silent, "train", "val")


def test_an_object_of_an_unknown_synset_is_told_and_left_out(tmp_path):
    root = write_det(tmp_path / "set", TRAIN, {"ILSVRC2012_val_00000001": [("n09999999", BOX), (ANT, BOX)]})
    found = opened(str(root), silent, "train", "val")
    assert [own.kind for own in found.wrong] == ["object"] and "n09999999" in found.wrong[0].reason
    assert found.parts.test.objects.labels.tolist() == [2]


def test_pictures_of_other_tasks_are_not_read(tmp_path):
    root, said = det(tmp_path / "set"), list[str]()
    annotated(root / "Data" / "CLS-LOC" / "val", root / "Annotations" / "CLS-LOC" / "val", VAL)
    assert stems(open_boxes(str(root), said.append, "train", "val").test) == sorted(VAL)
    assert any("files of other tasks are not read" in own for own in said)
    assert sum("without annotation" in own for own in said) == 1


def test_the_test_set_has_no_boxes(tmp_path):
    with pytest.raises(InputError, match="no boxes in the image set 'test'"):
        open_boxes(str(det(tmp_path / "set")), silent, "train", "test")


def test_data_info_counts_a_class_of_each_synset_of_200(tmp_path, deepres):
    """A made folder of 200 classes, most of them rare: both halves have about as many objects of each."""
    synsets = {f"n{number:08}": f"class_{number}" for number in range(200)}
    cycle = itertools.cycle(synsets)
    val = {f"ILSVRC2012_val_{n:08}": [(next(cycle), BOX), (next(cycle), (20, 5, 30, 15))] for n in range(1, 231)}
    root = write_det(tmp_path / "set", TRAIN | {"a/b": [("n00000000", BOX)]}, val, synsets)
    result = deepres("data", "info", root, "--train-set", "train,val1", "--test-set", "val2", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert len(facts["classes"]) == 200 and facts["classes"][7] == "class 7"
    assert "relative imbalance of classes at most" in result.stderr
    train, test = (facts[part]["per_class"] for part in ("train", "test"))
    assert all(abs(train[name] - test[name]) <= 2 for name in facts["classes"])


def test_halves_have_as_many_objects_of_each_class_as_can_be(tmp_path):
    """Rare classes as in val of ImageNet detection: 31 objects in the rarest, half of the classes below 110."""
    generator = torch.Generator().manual_seed(1)
    shares = 1 / torch.arange(1, 41, dtype=torch.float64)
    classes = shares.multinomial(3_000, replacement=True, generator=generator)
    counts = torch.zeros(1_201, 40, dtype=torch.int64)
    pictures = torch.randint(len(counts), classes.shape, generator=generator)
    counts.index_put_((pictures, classes), torch.ones(()).long(), accumulate=True)
    found = halves(counts)
    assert abs(int(found.second.sum()) * 2 - len(counts)) == 1
    odd = counts.sum(0) % 2
    least = (odd / counts.sum(0)).max()  # of an odd number, one is too many
    assert float(found.imbalances.max()) <= float(least) + 0.01
    by_chance = torch.rand(len(counts), generator=generator) < 0.5
    assert imbalances(counts, by_chance).median() > 4 * found.imbalances.median()
    assert torch.equal(halves(counts).second, found.second)


def test_halves_of_pictures_without_objects_are_halves():
    assert halves(torch.zeros(5, 3, dtype=torch.int64)).second.sum() == 2
    assert len(halves(torch.zeros(0, 3, dtype=torch.int64)).second) == 0


def test_a_picture_of_another_folder_keeps_its_layout(tmp_path):
    """Data of VOC in a folder that is called DET are data of VOC."""
    root = made.write_voc(tmp_path / "DET" / "set", {"a": [("cat", BOX)]})
    assert layout_of(root) == "Pascal VOC"
