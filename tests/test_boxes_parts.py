"""Which image sets are trained and tested on: VOC's lists, those of several years, parts of COCO and YOLO."""

from pathlib import Path

import pytest

import box_folders as made
from deepres.data.boxes.index import BoxParts
from deepres.data.boxes.opening import open_boxes
from deepres.runtime.errors import InputError, silent

BOX = [("cat", (0, 0, 9, 9))]


def stems(parts: BoxParts) -> tuple[str, str]:
    """The names of the training and of the test pictures, a letter each."""
    train, test = (" ".join(sorted(Path(name).stem for name in part.names)) for part in parts)
    return train, test


def voc(root: Path, **sets: str) -> Path:
    """A folder of VOC, its pictures and lists of pictures given by letters."""
    return made.write_voc(root, {name: BOX for own in sets.values() for name in own.split()}, split(sets))


def split(sets: dict[str, str]) -> dict[str, list[str]]:
    return {name: own.split() for name, own in sets.items()}


def both_years(root: Path, test12: bool = False) -> Path:
    """A development kit of VOC with both years; 2012's test set has no annotations."""
    voc(root / "VOC2007", train="a", val="b", trainval="a b", test="c d", cat_trainval="a")
    voc(root / "VOC2012", train="e", val="f", trainval="e f")
    made.picture(root / "VOC2012" / "JPEGImages" / "g.jpg")
    (root / "VOC2012" / "ImageSets" / "Main" / "test.txt").write_text("g\n")
    if test12:
        made.voc_xml(root / "VOC2012" / "Annotations" / "g.xml", made.voc_object(*BOX[0]))
    return root


@pytest.mark.parametrize(
    ("sets", "train", "test"),
    [
        ({"train": "a", "val": "b", "trainval": "a b", "test": "c"}, "a b", "c"),
        ({"train": "a", "val": "b", "test": "c"}, "a b", "c"),
        ({"trainval": "a b", "test": "c"}, "a b", "c"),
        ({"train": "a", "val": "b", "trainval": "a b"}, "a", "b"),
        ({"train": "a", "val": "b"}, "a", "b"),
        ({"test": "c d"}, "", "c d"),
        ({"trainval": "a b c", "test": "c"}, "a b", "c"),
        ({"train": "a", "val": "b", "cat_train": "a", "cat_val": "b"}, "a", "b"),
    ],
)
def test_the_test_set_is_tested_on_else_the_validation_set_and_all_others_are_trained_on(tmp_path, sets, train, test):
    assert stems(open_boxes(str(voc(tmp_path / "set", **sets)), silent)) == (train, test)


@pytest.mark.parametrize(
    ("train_set", "test_set", "expected"),
    [
        ("train", None, ("a", "c")),
        ("train", "val", ("a", "b")),
        ("trainval,test", None, ("a b c", "")),
        ("train+val", "test", ("a b", "c")),
        (None, "val", ("a", "b")),
        ("trainval", "none", ("a b", "")),
        ("trainval", "trainval", ("a b", "a b")),
        ("cat_train", "test", ("a", "c")),
    ],
)
def test_named_sets_take_the_place_of_the_rule(tmp_path, train_set, test_set, expected):
    root = voc(tmp_path / "set", train="a", val="b", trainval="a b", test="c", cat_train="a")
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("a  1\n")
    assert stems(open_boxes(str(root), silent, train_set, test_set)) == expected


@pytest.mark.parametrize("wrong", ["trainvall", "2007:trainval", ",", "2012:val"])
def test_a_set_that_is_not_there_is_one_sentence_with_those_that_are(tmp_path, wrong):
    root = voc(tmp_path / "set", trainval="a b", test="c")
    with pytest.raises(InputError, match=r"has no image set .*; it has test, trainval"):
        open_boxes(str(root), silent, wrong)


def test_data_without_sets_are_divided_by_the_rule_of_the_house(tmp_path):
    """By a hash of the names, so that other pictures move none, and XML beside pictures gives the same division."""
    names = [f"{number}" for number in range(40)]
    parts = stems(open_boxes(str(voc(tmp_path / "set", default=" ".join(names))), silent))
    assert len(parts[1].split()) in range(3, 15) and not set(parts[0].split()) & set(parts[1].split())
    for name in names:
        made.picture(tmp_path / "beside" / f"{name}.jpg", int(name))
        made.voc_xml(tmp_path / "beside" / f"{name}.xml", made.voc_object(*BOX[0]))
    assert stems(open_boxes(str(tmp_path / "beside"), silent)) == parts
    more = stems(open_boxes(str(voc(tmp_path / "set", default=" ".join(map(str, range(60))))), silent))
    assert set(parts[1].split()) <= set(more[1].split())


def test_a_kit_of_both_years_is_the_07_12_of_the_paper(tmp_path):
    root, said = both_years(tmp_path / "VOCdevkit"), []
    assert stems(open_boxes(str(root), said.append)) == ("a b e f", "c d")
    assert any("trained on 2007:trainval + 2012:trainval, tested on 2007:test" in sentence for sentence in said)
    assert stems(open_boxes(str(tmp_path), silent, "07+12")) == ("a b e f", "c d"), "from the folder around it"
    assert stems(open_boxes(str(root), silent, "2007:trainval")) == ("a b", "c d")
    assert stems(open_boxes(str(root), silent, "2012:train", "2012:val")) == ("e", "f")
    assert stems(open_boxes(str(root), silent, "trainval", "2007:test")) == ("a b e f", "c d"), "of both years"
    assert stems(open_boxes(str(root / "VOC2007"), silent, "2007:trainval", "test")) == ("a b", "c d")


def test_07_12_with_the_test_set_says_that_its_annotations_are_not_public(tmp_path):
    root = both_years(tmp_path / "VOCdevkit")
    for hide in (False, True):
        if hide:
            (root / "VOC2012" / "ImageSets" / "Main" / "test.txt").unlink()
        with pytest.raises(InputError, match=r"2012's test set, which are not public; train on 07\+12"):
            open_boxes(str(root), silent, "07++12")
    assert stems(open_boxes(str(root), silent, "07++12", "none")) == ("a b c d e f", "")
    assert stems(open_boxes(str(root), silent, "07++12", "2012:val")) == ("a b c d e f", "f"), "as it is told to do"
    root = both_years(tmp_path / "with" / "VOCdevkit", test12=True)
    assert stems(open_boxes(str(root), silent)) == ("a b e f", "c d"), "a test set is not trained on unless it is named"
    assert stems(open_boxes(str(root), silent, "07++12")) == ("a b c d e f", "g")


def test_the_parts_of_yolo_and_coco_follow_the_same_rule(tmp_path):
    for root, write in ((tmp_path / "yolo", yolo_part), (tmp_path / "coco", coco_part)):
        write(root, "train", "a")
        write(root, "valid", "b")
        assert stems(open_boxes(str(root), silent)) == ("a", "b")
        write(root, "test", "c")
        assert stems(open_boxes(str(root), silent)) == ("a b", "c")
        assert stems(open_boxes(str(root), silent, "train", "valid")) == ("a", "b")
    for name in ("a", "b", "c"):
        (tmp_path / "yolo" / "labels" / "test" / f"{name}.txt").unlink(missing_ok=True)
    assert stems(open_boxes(str(tmp_path / "yolo"), silent)) == ("a", "b"), "a test set without boxes tests nothing"


def yolo_part(root: Path, part: str, name: str) -> None:
    made.picture(root / "images" / part / f"{name}.jpg")
    made.yolo_txt(root / "labels" / part / f"{name}.txt", BOX, ["cat"])


def coco_part(root: Path, part: str, name: str) -> None:
    made.picture(root / part / f"{name}.jpg")
    made.coco_json(root / "annotations" / f"instances_{part}.json", {f"{name}.jpg": BOX}, {"cat": 1})


def test_two_editions_of_coco_in_one_folder_are_not_mixed(tmp_path):
    """Their pictures are the same, under other numbers."""
    for year in (2014, 2017):
        coco_part(tmp_path, f"train{year}", "a")
        coco_part(tmp_path, f"val{year}", "b")
    with pytest.raises(InputError, match=r"train2014 \+ train2017, editions that share pictures; name the set"):
        open_boxes(str(tmp_path), silent)
    assert stems(open_boxes(str(tmp_path), silent, "train2017", "val2017")) == ("a", "b")


def test_training_data_alone_are_divided(tmp_path):
    """A folder `train/` with no other has no test part."""
    for number in range(30):
        yolo_part(tmp_path, "train", f"{number:02}")
    train, test = stems(open_boxes(str(tmp_path), silent))
    assert train and test and len(train.split()) + len(test.split()) == 30
