"""What is wrong with data with boxes is told by file and left out; hostile files are refused with a sentence."""

import json
import os
import random
import re
from pathlib import Path

import pytest
from PIL import Image

import box_folders as made
from deepres.data.boxes.cleaning import turned
from deepres.data.boxes.opening import open_boxes, opened
from deepres.data.rgb import open_picture, upright
from deepres.runtime.errors import InputError, silent

BOX = (3.0, 4.0, 13.0, 14.0)
CAT = [("cat", BOX)]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A folder of VOC with two pictures, `a` and `b`."""
    return made.write_voc(tmp_path / "set", {"a": CAT, "b": CAT})


def faults(root: Path, kind: str) -> list[tuple[str, str, int]]:
    """The faults of one kind: names, reasons and how often."""
    found = opened(str(root), silent, test_set="none").faults
    return [(own.name, own.reason, own.times) for own in found if own.kind == kind]


def names(root: Path) -> list[str]:
    return [Path(name).stem for part in open_boxes(str(root), silent, test_set="none") for name in part.names]


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 4, 9), (5, 9, 9, 9), (45, 3, 60, 9), (-9, -9, -2, -2)])
def test_a_box_without_width_or_height_in_the_picture_is_left_out_and_named(voc, box):
    """Its picture and its other boxes stay. Ends of VOC that are equal are a click, not a pixel."""
    made.voc_xml(voc / "Annotations" / "a.xml", made.voc_object("cat", BOX) + made.voc_object("cat", box))
    ((name, reason, times),) = faults(voc, "flat")
    assert name == "Annotations/a.xml" and "without width or height" in reason and times == 1
    assert [len(part) for part in open_boxes(str(voc), silent, test_set="none")] == [2, 0]
    assert open_boxes(str(voc), silent, test_set="none").train.objects.boxes.tolist() == [list(BOX)] * 2


def test_ends_of_voc_that_are_equal_are_no_box(voc):
    inside = (
        "<object><name>cat</name><bndbox><xmin>7</xmin><ymin>7</ymin><xmax>7</xmax><ymax>7</ymax></bndbox></object>"
    )
    made.voc_xml(voc / "Annotations" / "a.xml", inside)
    assert faults(voc, "flat")[0][0] == "Annotations/a.xml"
    assert len(open_boxes(str(voc), silent, test_set="none").train.truth(0)) == 0, "the picture is background now"


def test_boxes_out_of_the_picture_are_cut_and_doubled_ones_kept_once(voc):
    inside = "".join(made.voc_object("cat", box) for box in (BOX, BOX, (-8, 2, 50, 31), (30, 20, 41, 25)))
    made.voc_xml(voc / "Annotations" / "a.xml", inside + made.voc_object("dog", BOX))
    assert [(name, times) for name, _, times in faults(voc, "outside")] == [("Annotations/a.xml", 2)]
    assert [(name, times) for name, _, times in faults(voc, "doubled")] == [("Annotations/a.xml", 1)]
    truth = open_boxes(str(voc), silent, test_set="none").train.truth(0)
    assert truth.boxes.tolist() == [list(BOX), [0, 2, 40, 30], [30, 20, 40, 25], list(BOX)], "another class stays"


def test_rounded_numbers_are_not_told_as_out_of_the_picture(tmp_path):
    made.picture(tmp_path / "a.jpg")
    made.coco_json(tmp_path / "x.json", {"a.jpg": [("cat", (-0.01, 0, 40.004, 30.3))]}, {"cat": 1})
    assert not faults(tmp_path, "outside")
    assert open_boxes(str(tmp_path), silent, test_set="none").train.objects.boxes.tolist() == [[0, 0, 40, 30]]


def test_what_is_missing_unread_or_without_annotation_is_left_out_and_named(voc):
    made.picture(voc / "JPEGImages" / "bare.jpg")
    made.voc_xml(voc / "Annotations" / "gone.xml", made.voc_object(*CAT[0]), filename="lost.png")
    (voc / "Annotations" / "cut.xml").write_text("<annotation><object>")
    made.picture(voc / "JPEGImages" / "cut.jpg")
    made.voc_xml(voc / "Annotations" / "bad.xml", made.voc_object(*CAT[0]))
    (voc / "JPEGImages" / "bad.jpg").write_bytes(b"no picture")
    said: list[str] = []
    assert [Path(name).stem for name in open_boxes(str(voc), said.append, test_set="none").train.names] == ["a", "b"]
    assert faults(voc, "missing") == [
        ("Annotations/gone.xml", "the picture lost.png of this annotation is not there", 1)
    ]
    assert [own[0] for own in faults(voc, "unannotated")] == ["JPEGImages/bare.jpg"]
    assert faults(voc, "unread")[0][:2] == ("Annotations/cut.xml", "it is not XML: no element found: line 1, column 20")
    assert faults(voc, "picture") == [("JPEGImages/bad.jpg", "it is not a picture", 1)]
    for kept in (said, again := []):
        assert kept is said or open_boxes(str(voc), again.append, test_set="none")
        for name in ("bare.jpg", "gone.xml", "cut.xml", "bad.jpg"):
            assert sum(name in sentence for sentence in kept) == 1, "said also of data that were opened before"


def test_a_listed_picture_that_is_not_there_is_named(voc):
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("a\nzzz\n")
    assert [own[0] for own in faults(voc, "missing")] == ["zzz"] and names(voc) == ["a"]


def test_the_picture_is_found_by_the_name_in_the_annotation_where_its_own_is_another(voc):
    made.picture(voc / "JPEGImages" / "IMG 7.png")
    made.voc_xml(voc / "Annotations" / "0007.xml", made.voc_object(*CAT[0]), filename=r"C:\pictures\IMG 7.png")
    assert sorted(names(voc)) == ["IMG 7", "a", "b"] and not faults(voc, "unannotated")


def test_a_size_that_contradicts_the_picture_is_named_and_the_picture_counts(voc):
    made.voc_xml(voc / "Annotations" / "a.xml", made.voc_object("cat", (0, 0, 35, 29)), size=(30, 30))
    made.voc_xml(voc / "Annotations" / "b.xml", made.voc_object("cat", BOX), size=(0, 0))
    assert faults(voc, "size") == [("Annotations/a.xml", "it gives 30x30, the picture JPEGImages/a.jpg has 40x30", 1)]
    assert open_boxes(str(voc), silent, test_set="none").train.truth(0).boxes.tolist() == [[0, 0, 35, 29]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_boxes_are_turned_with_the_picture_where_they_were_made_on_the_stored_one(tmp_path, orientation, suffix):
    """A white rectangle is in the box in each orientation, whichever of both sizes the annotation gives.

    Where both sizes are the same, the boxes are those of the upright picture. A TIFF is always upright.
    """
    stored, box = (64, 48), (8, 16, 40, 24)
    image = Image.new("RGB", stored)
    image.paste("white", box)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "set" / f"a.{suffix}"
    file.parent.mkdir()
    image.save(file, exif=exif, quality=95)
    with open_picture(file) as opened_picture:
        seen = upright(opened_picture)
    white = seen.convert("L").point(lambda value: 255 * (value > 128)).getbbox()
    assert tuple(map(round, turned(box, stored, orientation))) == white
    sideways = orientation > 4
    for size in {stored, seen.size}:
        on_stored = size == stored and sideways and suffix == "jpg"
        made.voc_xml(tmp_path / "set" / "a.xml", made.voc_object("cat", box if on_stored else white), size=size)
        index = open_boxes(str(tmp_path / "set"), silent, test_set="none").train
        assert tuple(index.truth(0).boxes[0].int().tolist()) == white and index.sizes.tolist() == [list(seen.size)]
    made.voc_xml(tmp_path / "set" / "a.xml", made.voc_object("cat", white), size=None)
    assert (
        tuple(open_boxes(str(tmp_path / "set"), silent, test_set="none").train.truth(0).boxes[0].int().tolist())
        == white
    )


def test_bad_lines_of_yolo_are_left_out_with_their_number(tmp_path):
    for name in ("a", "b", "c", "d"):
        made.picture(tmp_path / "images" / f"{name}.jpg")
        made.yolo_txt(tmp_path / "labels" / f"{name}.txt", CAT, ["cat"])
    (tmp_path / "classes.txt").write_text("cat\n")
    bad = [
        "0 0.5 0.5 0.1",
        "7 0.5 0.5 0.1 0.1",
        "0 300 200 50 50",
        "cat 0.5 0.5 0.1 0.1",
        "-1 0.5 0.5 0.1 0.1",
        "0 0.5 nan 1 1",
    ]
    with (tmp_path / "labels" / "a.txt").open("a") as file:
        file.write("\n".join(bad))
    (tmp_path / "labels" / "c.txt").write_bytes(b"0 0.5 0.5 0.1 0.1 \xff\xfe")
    (tmp_path / "labels" / "d.txt").write_text(made.yolo_line(0, (-4, 0, 20, 20)))
    made.yolo_txt(tmp_path / "labels" / "gone.txt", CAT, ["cat"])
    said: list[str] = []
    (tmp_path / "images" / "none.jpg").write_bytes((tmp_path / "images" / "a.jpg").read_bytes())
    index = open_boxes(str(tmp_path), said.append, test_set="none").train
    assert index.objects.boxes.tolist() == [list(BOX), list(BOX), [0, 0, 20, 20]]
    assert faults(tmp_path, "object") == [
        ("labels/a.txt", "class 7, of which there is no name", 1),
        ("labels/a.txt", "line 2: 3 numbers behind the class, where a box has 4", 5),
    ]
    assert faults(tmp_path, "unread") == [("labels/c.txt", "it is not UTF-8", 1)]
    assert [own[0] for own in faults(tmp_path, "missing")] == ["labels/gone.txt"]
    assert [own[0] for own in faults(tmp_path, "outside")] == ["labels/d.txt"]
    assert any("kept as background: 1 (images/none.jpg)" in sentence for sentence in said)


def test_a_second_annotation_of_a_picture_is_named(voc, tmp_path):
    made.voc_xml(voc / "a.xml", made.voc_object("dog", BOX))
    assert faults(voc, "stray") == [("a.xml", "its picture has another annotation, Annotations/a.xml", 1)]
    made.picture(tmp_path / "yolo" / "images" / "a.jpg")
    for name in ("images", "labels"):
        made.yolo_txt(tmp_path / "yolo" / name / "a.txt", CAT, ["cat"])
    reason = "its picture has another annotation, labels/a.txt"
    assert faults(tmp_path / "yolo", "stray") == [("images/a.txt", reason, 1)]


def test_annotations_of_unknown_images_and_classes_of_coco_are_told_with_their_count(tmp_path):
    made.picture(tmp_path / "a.jpg")
    entry = {"id": 0, "image_id": 1, "category_id": 1, "bbox": [3, 4, 10, 10], "area": 9, "iscrowd": 0}
    wrong = [{"image_id": 5}, {"image_id": 6}, {"category_id": 2}, {"bbox": [1, 2, 3]}, {"bbox": None}]
    annotations = [entry, *(entry | change for change in wrong)]
    made.coco_json(tmp_path / "x.json", {"a.jpg": [], "gone.jpg": []}, {"cat": 1}, annotations=annotations)
    assert faults(tmp_path, "stray") == [("x.json", "an image that is not listed (image 5)", 2)]
    assert faults(tmp_path, "object") == [("x.json", "category 2 is not listed (image 1)", 3)]
    assert [own[0] for own in faults(tmp_path, "missing")] == ["gone.jpg"]
    assert len(open_boxes(str(tmp_path), silent, test_set="none").train.objects) == 1


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"{BOMB}<annotation>&y;</annotation>".encode(), "declares a document type"),
        (f"{BOMB}<annotation>&y;</annotation>".encode("utf-16"), "declares a document type"),
        (b"<annotation>" + b"<a>" * 100_000, "nested more than 32 deep"),
        (b"<annotation>\xff\xfe</annotation>", "it is not XML: not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "it is not XML: unknown encoding"),
        (b"<html><annotation/></html>", "its root is <html>, not <annotation>"),
        (b"", "it is not XML: no element found"),
        (b"<annotation>" + b" " * 2**24, "more than the limit"),
    ],
)
def test_hostile_xml_is_refused_with_a_reason_and_the_others_are_read(voc, content, reason):
    (voc / "Annotations" / "a.xml").write_bytes(content)
    ((name, told, _),) = faults(voc, "unread")
    assert name == "Annotations/a.xml" and reason in told and names(voc) == ["b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"images": [], "annotations": ' + b"[" * 100_000, "expected object, got array"),
        (b'{"images": [], "annotations": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (b'{"images": [{"id": "a", "file_name": "x"}], "annotations": []}', "expected int, got str"),
        (b'{"images": [{"id": 1e999, "file_name": "x"}], "annotations": []}', "out of range"),
        (b'{"images": [{"id": 99999999999999999999999, "file_name": "x"}], "annotations": []}', "expected int"),
        (b'{"images": [{"id": 1}], "annotations": []}', "file_name"),
        (b'{"images": [{"id": 1, "file_name": "\xff"}], "annotations": []}', "cannot be read"),
        (b'{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": []}', "cannot be read"),
        (b'{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}', "one id"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "id 1"),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            "same name",
        ),
        (b'{"images": [{"id": 1, "file_name": "../../x.jpg"}], "annotations": []}', "no picture with boxes"),
        (b'{"images": [], "annotations": [NaN]}', "cannot be read"),
    ],
)
@pytest.mark.usefixtures("checked_types")
def test_hostile_json_is_one_sentence(tmp_path, refused, content, reason):
    made.picture(tmp_path / "set" / "a.jpg")
    (tmp_path / "set" / "instances_train.json").write_bytes(content)
    assert reason in refused("data", "info", "set")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"names: [a, b\n", "is not YAML"),
        (b"names: \xff\xfe\n", "is not YAML"),
        (b"names: " + b"[" * 10_000, "is not YAML"),
        (b"names: " + b" " * 2**20, "more than the limit"),
        (b"names: {a: b}\n", "keys are no numbers"),
        (b"names: [{a: b}]\n", "expected str"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: [*c]\n", "expected str"),
        (b"names: [cat]\ntrain: !!python/object/apply:os.system ['touch hacked']\nval: {a: b}\n", "expected"),
    ],
)
@pytest.mark.usefixtures("checked_types")
def test_hostile_yaml_is_one_sentence(tmp_path, refused, content, reason):
    made.picture(tmp_path / "set" / "images" / "a.jpg")
    made.yolo_txt(tmp_path / "set" / "labels" / "a.txt", CAT, ["cat"])
    (tmp_path / "set" / "data.yaml").write_bytes(content)
    assert reason in refused("data", "info", "set") and not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("file", ["classes.txt", "train.txt"])
def test_lists_that_are_not_text_are_one_sentence(tmp_path, refused, file):
    """UTF-16 that ends in the middle of a character; names in another encoding are those of the file system."""
    made.picture(tmp_path / "set" / "images" / "a.jpg")
    made.yolo_txt(tmp_path / "set" / "labels" / "a.txt", CAT, ["cat"])
    (tmp_path / "set" / "data.yaml").write_text("names:\ntest:\n")
    (tmp_path / "set" / file).write_bytes("cat\n".encode("utf-16")[:-1])
    assert f"{file} is not UTF-8" in refused("data", "info", "set")


def test_huge_labels_pipes_and_loops_are_not_read(tmp_path):
    """A text of gigabytes takes no space here: it is a hole. A pipe would be waited for."""
    made.picture(tmp_path / "images" / "a.jpg")
    made.yolo_txt(tmp_path / "labels" / "a.txt", CAT, ["cat"])
    for name in ("huge", "pipe", "loop"):
        made.picture(tmp_path / "images" / f"{name}.jpg")
    with (tmp_path / "labels" / "huge.txt").open("wb") as file:
        file.write(b"0 " + b"0.5 " * 1000)
        file.truncate(10 * 2**30)
    os.mkfifo(tmp_path / "labels" / "pipe.txt")
    (tmp_path / "labels" / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "images" / "round").symlink_to("..")
    assert names(tmp_path) == ["a"]
    assert [own[0] for own in faults(tmp_path, "unread")] == ["labels/huge.txt", "labels/loop.txt", "labels/pipe.txt"]


def test_data_without_any_box_are_one_sentence_with_the_first_fault(voc, refused):
    for name in ("a", "b"):
        made.voc_xml(voc / "Annotations" / f"{name}.xml", "<object><name>cat</name></object>")
    sentence = refused("data", "info", voc)
    assert "has no picture with boxes that can be read (Annotations/a.xml: an object 'cat' has no bndbox)" in sentence


def test_a_damaged_index_is_made_again_and_a_changed_annotation_is_seen(voc, tmp_path):
    first = open_boxes(str(voc), silent, test_set="none").train
    (file,) = (Path(os.environ["DEEPRES_CACHE"]) / "boxes").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    assert open_boxes(str(voc), silent, test_set="none").train.fingerprint == first.fingerprint
    made.voc_xml(voc / "Annotations" / "a.xml", made.voc_object("cat", (0, 0, 5, 5)))
    changed = open_boxes(str(voc), silent, test_set="none").train
    assert changed.fingerprint != first.fingerprint and changed.truth(0).boxes.tolist() == [[0, 0, 5, 5]]
    assert changed.manifest.digests.equal(first.manifest.digests), "the pictures are the same"


def test_random_damage_of_an_annotation_never_ends_in_a_traceback(tmp_path):
    """Bytes of each kind of file are changed at random; either boxes are found, or there is one sentence."""
    rng, files = random.Random(0), dict[Path, bytes]()
    for layout in ("voc", "coco", "yolo"):
        root = tmp_path / layout
        made.picture(root / "images" / "a.jpg")
        if layout == "voc":
            files[root] = made.voc_xml(root / "Annotations" / "a.xml", made.voc_object(*CAT[0])).read_bytes()
        elif layout == "coco":
            files[root] = made.coco_json(root / "x.json", {"a.jpg": CAT}, {"cat": 1}).read_bytes()
        else:
            files[root] = made.yolo_txt(root / "labels" / "a.txt", CAT, ["cat"]).read_bytes()
    found = 0
    for root, content in files.items():
        (file,) = (own for own in root.rglob("*.*") if own.suffix in (".xml", ".json", ".txt"))
        for _ in range(25):
            damaged = bytearray(content)
            damaged[rng.randrange(len(damaged))] = rng.choice(b'0123456789-.eE "<>{}[],:\xff\0')
            file.write_bytes(damaged)
            try:
                for part in open_boxes(str(root), silent, test_set="none"):
                    boxes = part.objects.boxes
                    assert bool((boxes[:, 2:] > boxes[:, :2]).all()) and float(boxes.abs().sum()) < 1e6
                    found += len(boxes)
            except InputError as error:
                assert "\n" not in str(error)
    assert found > 10, "most damage is to tags and keys"


def test_check_names_every_fault_and_ends_with_code_1(deepres, voc):
    """As for classification; a picture that is cut in the middle is found by decoding it."""
    result = deepres("data", "check", voc)
    assert result.returncode == 0 and result.stdout.endswith("2 images, all decode\n"), result.stderr
    made.voc_xml(voc / "Annotations" / "a.xml", made.voc_object("cat", BOX) + made.voc_object("cat", (50, 0, 60, 9)))
    file = voc / "JPEGImages" / "b.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    result = deepres("data", "check", voc, "--workers", 0)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "Annotations/a.xml: a box without width or height: (50, 0, 60, 9)"
    assert lines[1].startswith("JPEGImages/b.jpg: image file is truncated")
    assert lines[-1] == "2 images, 1 do not decode, 1 faults of boxes and files"
    facts = json.loads(deepres("data", "check", voc, "--json").stdout)
    assert [own["name"] for own in facts["wrong"]] == ["Annotations/a.xml", "JPEGImages/b.jpg"]
    assert facts["wrong"][0]["kind"] == "flat"


def test_info_says_layout_parts_classes_and_sizes(deepres, tmp_path):
    made.write_voc(
        tmp_path / "set", {"a": [*CAT, ("dog", (0, 0, 40, 30))], "b": [], "c": CAT}, {"train": "ab", "val": "c"}
    )
    made.voc_xml(tmp_path / "set" / "Annotations" / "c.xml", made.voc_object("cat", BOX, "<difficult>1</difficult>"))
    facts = json.loads(deepres("data", "set", "--json").stdout)
    assert facts["layout"] == "Pascal VOC" and facts["classes"] == ["cat", "dog"] and facts["faults"] == 0
    assert facts["train"]["images"] == 2 and facts["train"]["without_boxes"] == 1 and facts["train"]["boxes"] == 2
    assert facts["train"]["per_class"] == {"cat": 1, "dog": 1} and facts["test"]["per_class"] == {"cat": 1, "dog": 0}
    assert facts["test"]["difficult"] == 1 and facts["test"]["crowd"] == 0
    assert facts["train"]["sides"][0] == 10 and (facts["train"]["small"], facts["train"]["medium"]) == (1, 1)
    shown = deepres("data", "info", "set")
    assert "Pascal VOC" in shown.stdout and re.search(r"cat\W+1\W+1", shown.stdout)
    assert "trained on train, tested on val" in shown.stderr
    other = json.loads(deepres("data", "set", "--train-set", "val", "--test-set", "none", "--json").stdout)
    assert (other["train"]["images"], other["test"]["images"]) == (1, 0)


def test_image_sets_of_data_without_boxes_are_refused(refused, folder):
    assert "has no boxes" in refused("data", "info", folder, "--train-set", "train")
    assert "has no boxes" in refused("data", "check", folder, "--test-set", "val")


def test_the_real_blood_cells_have_two_boxes_of_no_size_by_file_name(deepres, real_data):
    """Counted here by their text."""
    folder, flat = real_data / "bccd" / "Annotations", []
    for file in sorted(folder.glob("*.xml")):
        for box in re.findall(r"<bndbox>(.*?)</bndbox>", file.read_text(), re.DOTALL):
            left, top, right, bottom = (
                int(re.search(rf"<{side}>(\d+)<", box)[1]) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            flat += [file.name] * (right <= left or bottom <= top)
    result = deepres("data", "check", real_data / "bccd")
    told = [line.partition(":")[0].rpartition("/")[2] for line in result.stdout.splitlines() if "without width" in line]
    assert result.returncode == 1 and told == flat and len(flat) == 2
    assert "bccd: Pascal VOC: 292 training and 72 test images of 3 classes (Platelets, RBC, WBC)" in result.stderr
