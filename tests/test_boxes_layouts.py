"""Every layout of data with boxes is told by itself and gives the same boxes, whoever wrote it."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch

import box_folders as made
import images
from deepres.data.boxes.index import BoxIndex
from deepres.data.boxes.layouts import is_boxes, layout_of
from deepres.data.boxes.opening import open_boxes
from deepres.runtime.errors import InputError

OBJECTS = {
    "a": [("dog", (2, 3, 12, 13)), ("cat", (20, 10, 40, 30))],
    "b": [],
    "c": [("cat", (0, 0, 8, 8))],
    "d": [("dog", (5, 5, 25, 20))],
}
NAMES = ["cat", "dog"]
TRAIN, TEST = ("a", "b"), ("c", "d")


class Said(list[str]):
    """What was said while a data set was opened."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)

    @property
    def text(self) -> str:
        return "\n".join(self)


def found(index: BoxIndex) -> dict[str, set[tuple[str, tuple[float, ...]]]]:
    """The objects of each picture, by the stem of its name."""
    return {
        Path(name).stem: {
            (index.classes[label], tuple(round(side, 3) for side in box))
            for label, box in zip(index.truth(place).labels.tolist(), index.truth(place).boxes.tolist(), strict=True)
        }
        for place, name in enumerate(index.names)
    }


def expected(names):
    return {name: {(label, tuple(map(float, box))) for label, box in OBJECTS[name]} for name in names}


def some(names):
    return {name: OBJECTS[name] for name in names}


def voc(root: Path) -> Path:
    return made.write_voc(root, OBJECTS, {"trainval": TRAIN, "test": TEST})


def voc_roboflow(root: Path) -> Path:
    """Pictures and XML side by side in `train/` and `valid/`, as Roboflow and labelImg leave them."""
    for part, names in (("train", TRAIN), ("valid", TEST)):
        for seed, name in enumerate(names):
            made.picture(root / part / f"{name}.jpg", seed)
            made.voc_xml(root / part / f"{name}.xml", "".join(made.voc_object(*own) for own in OBJECTS[name]))
    return root


def voc_in_parts(root: Path) -> Path:
    """`images/` and `annotations/` in each part, with PNG pictures."""
    for part, names in (("Train", TRAIN), ("Test", TEST)):
        for name in names:
            made.picture(root / part / "images" / f"{name}.png")
            made.voc_xml(
                root / part / "annotations" / f"{name}.xml", "".join(made.voc_object(*o) for o in OBJECTS[name])
            )
    return root


def coco(root: Path) -> Path:
    ids = {"dog": 18, "cat": 17}
    for first, (part, names) in enumerate({"train2017": TRAIN, "val2017": TEST}.items()):
        for name in names:
            made.picture(root / part / f"{name}.jpg")
        listed = {f"{name}.jpg": OBJECTS[name] for name in names}
        made.coco_json(root / "annotations" / f"instances_{part}.json", listed, ids, first=100 * first + 1)
        (root / "annotations" / f"captions_{part}.json").write_text('{"images": [], "annotations": []}')
    return root


def coco_roboflow(root: Path) -> Path:
    for part, names in (("train", TRAIN), ("valid", TEST)):
        for name in names:
            made.picture(root / part / f"{name}.jpg")
        listed = {f"{name}.jpg": OBJECTS[name] for name in names}
        made.coco_json(root / part / "_annotations.coco.json", listed, {"cat": 0, "dog": 3}, first=0)
    return root


def coco_in_images(root: Path) -> Path:
    """Pictures in `images/NAME/`, paths with folders and backslashes in the JSON, as Label Studio writes them."""
    for part, names in (("train", TRAIN), ("test", TEST)):
        for name in names:
            made.picture(root / "images" / part / f"{name}.jpg")
        listed = {f"images\\{part}\\{name}.jpg": OBJECTS[name] for name in names}
        made.coco_json(root / f"{part}.json", listed, {"cat": 1, "dog": 2})
    return root


def yolo(root: Path) -> Path:
    """As Ultralytics has it; `b` has no text, and the folder that the YAML file names is not here."""
    for part, names in (("train", TRAIN), ("val", TEST)):
        for name in names:
            made.picture(root / "images" / part / f"{name}.jpg")
            if OBJECTS[name]:
                made.yolo_txt(root / "labels" / part / f"{name}.txt", OBJECTS[name], NAMES)
    text = "path: ../datasets/pets\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: cat\n  1: dog\n"
    (root / "pets.yaml").write_text(text)
    return root


def yolo_roboflow(root: Path) -> Path:
    """As Roboflow has it: `train/images`, a YAML file with paths from elsewhere, and an empty text for no object."""
    for part, names in (("train", TRAIN), ("valid", TEST)):
        for name in names:
            made.picture(root / part / "images" / f"{name}.jpg")
            made.yolo_txt(root / part / "labels" / f"{name}.txt", OBJECTS[name], NAMES)
    yaml = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    (root / "data.yaml").write_text(yaml)
    return root


def yolo_darknet(root: Path) -> Path:
    """As CVAT writes it: lists of pictures with paths from elsewhere, texts beside the pictures, and `obj.names`."""
    for part, names in (("train", TRAIN), ("valid", TEST)):
        for name in names:
            made.picture(root / f"obj_{part}_data" / f"{name}.jpg")
            made.yolo_txt(root / f"obj_{part}_data" / f"{name}.txt", OBJECTS[name], NAMES)
        (root / f"{part}.txt").write_text("".join(f"data/obj_{part}_data/{name}.jpg\n" for name in names))
    (root / "obj.names").write_text("cat\r\ndog\r\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    return root


def yolo_lists(root: Path) -> Path:
    """As Ultralytics has COCO: lists of pictures in the YAML file, several of them for a part."""
    for part, names in (("train", TRAIN), ("test", TEST)):
        for name in names:
            made.picture(root / "images" / "all" / f"{name}.jpg")
            made.yolo_txt(root / "labels" / "all" / f"{name}.txt", OBJECTS[name], NAMES)
            (root / f"{part}_{name}.txt").write_text(f"./images/all/{name}.jpg\n")
    lists = {part: [f"{part}_{name}.txt" for name in names] for part, names in (("train", TRAIN), ("test", TEST))}
    (root / "data.yaml").write_text(
        f"path: C:\\content\\pets\ntrain: {lists['train']}\ntest: {lists['test']}\nnames: {NAMES}\n"
    )
    return root


LAYOUTS = {
    voc: "Pascal VOC",
    voc_roboflow: "Pascal VOC",
    voc_in_parts: "Pascal VOC",
    coco: "COCO JSON",
    coco_roboflow: "COCO JSON",
    coco_in_images: "COCO JSON",
    yolo: "YOLO",
    yolo_roboflow: "YOLO",
    yolo_darknet: "YOLO",
    yolo_lists: "YOLO",
}


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_is_told_by_itself_and_gives_the_same_boxes_and_parts(tmp_path, write):
    root, said = write(tmp_path / "set"), Said()
    assert layout_of(root) == LAYOUTS[write] and is_boxes(str(root))
    parts = open_boxes(str(root), said)
    assert set(parts.train.classes) == set(NAMES), "background is no class"
    assert found(parts.train) == expected(TRAIN) and found(parts.test) == expected(TEST), said.text
    assert parts.train.sizes.tolist() == [list(made.SIZE)] * 2
    again = open_boxes(str(root), Said())
    assert again.train.fingerprint == parts.train.fingerprint and found(again.test) == found(parts.test)


def test_an_index_says_where_the_pictures_are_and_pickles_small(tmp_path):
    index = open_boxes(str(voc(tmp_path / "set")), Said()).train
    assert len(index) == 2 and index.pictures.labels.tolist() == [0, 0]
    assert index.pictures.encoded(0) == (tmp_path / "set" / "JPEGImages" / "a.jpg").read_bytes()
    assert list(index.names) == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"] and len(index.manifest.digests) == 2
    truth = index.truth(0)
    assert truth.boxes.dtype == torch.float32 and truth.labels.tolist() == [1, 0]
    assert not truth.difficult.any() and not truth.crowd.any() and truth.areas.tolist() == [100, 400]
    assert len(index.truth(1)) == 0 and index.truth(1).boxes.shape == (0, 4)
    back = pickle.loads(pickle.dumps(index))
    assert back.truth(0).boxes.equal(truth.boxes) and back.fingerprint == index.fingerprint
    assert index.category_ids == (1, 2) and index.image_ids.tolist() == [1, 2]


def test_the_ids_of_coco_are_kept_and_classes_are_in_their_order(tmp_path):
    """0 is a class as any other; ids may have gaps and come in any order."""
    root = tmp_path / "set"
    made.picture(root / "train" / "a.jpg")
    objects = {"a.jpg": [("zebra", (0, 0, 5, 5)), ("ant", (5, 5, 10, 10)), ("bee", (1, 1, 4, 4))]}
    made.coco_json(root / "annotations" / "instances_train.json", objects, {"ant": 90, "zebra": 0, "bee": 3}, first=7)
    index = open_boxes(str(root), Said(), "train", "none").train
    assert index.category_ids == (0, 3, 90) and index.classes == ("zebra", "bee", "ant")
    assert index.truth(0).labels.tolist() == [0, 2, 1] and index.image_ids.tolist() == [7]


def test_crowds_and_the_areas_of_masks_are_those_of_the_annotation(tmp_path):
    root = tmp_path / "set"
    made.picture(root / "a.jpg")
    entry = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": {"counts": [0, 9], "size": [3, 3]}}
    annotations = [entry | {"id": 0, "iscrowd": 1, "area": 5.5}, entry | {"id": 1, "bbox": [0, 0, 9, 2]}]
    made.coco_json(root / "result.json", {"a.jpg": []}, {"cat": 1}, annotations=annotations)
    truth = open_boxes(str(root), Said(), test_set="none").train.truth(0)
    assert truth.crowd.tolist() == [True, False] and truth.areas.tolist() == [5.5, 18]
    assert truth.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 9, 2]]


def test_image_ids_are_numbered_anew_where_two_files_have_the_same(tmp_path):
    """Roboflow numbers the pictures of each part from 0 on."""
    root = coco_roboflow(tmp_path / "set")
    made.picture(root / "test" / "e.jpg")
    made.coco_json(root / "test" / "_annotations.coco.json", {"e.jpg": OBJECTS["a"]}, {"cat": 0, "dog": 3}, first=0)
    parts = open_boxes(str(root), Said())
    assert len(parts.train) == 4 and sorted(parts.train.image_ids.tolist()) == [1, 2, 3, 4]
    assert parts.test.image_ids.tolist() == [0]


def test_two_lists_of_classes_must_agree(tmp_path):
    root = coco_roboflow(tmp_path / "set")
    made.coco_json(root / "valid" / "_annotations.coco.json", {"c.jpg": OBJECTS["c"]}, {"cat": 3, "dog": 0})
    with pytest.raises(InputError, match="class 3 'dog' in one set and 'cat' in another"):
        open_boxes(str(root), Said())


def test_only_the_own_fields_of_an_object_of_voc_count(tmp_path):
    """Parts of objects have boxes of their own; difficult is kept, truncated is not; numbers may be decimals."""
    root = made.write_voc(tmp_path / "set", {"a": []})
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    inside = made.voc_object("person", (1.5, 2.25, 10, 12), f"<truncated>1</truncated>{part}")
    inside += made.voc_object(" person ", (3, 4, 10, 12), "<difficult> 1 </difficult>")
    inside += "<object><name>box</name><polygon/></object>"
    made.voc_xml(root / "Annotations" / "a.xml", inside)
    said = Said()
    index = open_boxes(str(root), said, test_set="none").train
    assert index.classes == ("person",) and index.truth(0).difficult.tolist() == [False, True]
    assert index.truth(0).boxes.tolist() == [[1.5, 2.25, 10, 12], [3, 4, 10, 12]]
    assert "objects without a known class or a box, left out: 1 (Annotations/a.xml)" in said.text


def test_a_box_that_begins_at_pixel_0_is_cut_and_does_not_wrap(tmp_path):
    """Such labels are counted from 0. It is said once, with a count."""
    root, said = (
        made.write_voc(
            tmp_path / "set", {"a": [("cat", (-1, -1, 9, 9)), ("cat", (-1, -1, 5, 5))], "b": [("cat", (-1, 4, 9, 9))]}
        ),
        Said(),
    )
    index = open_boxes(str(root), said, test_set="none").train
    assert index.objects.boxes.tolist() == [[0, 0, 9, 9], [0, 0, 5, 5], [0, 4, 9, 9]]
    assert sum("pixel 0" in sentence for sentence in said) == 1 and "Pascal VOC, cut at the border: 3 " in said.text
    assert "reach out" not in said.text


def test_the_polygons_of_yolo_become_the_boxes_around_them(tmp_path):
    root = tmp_path / "set"
    made.picture(root / "images" / "a.jpg")
    file = root / "labels" / "a.txt"
    file.parent.mkdir()
    file.write_text("1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n\n0 0.5 0.5 1 1\n")
    index = open_boxes(str(root), Said(), test_set="none").train
    assert index.truth(0).boxes.tolist() == [[10, 7.5, 30, 22.5], [0, 0, 40, 30]]
    assert index.classes == ("0", "1"), "numbers, where no file has names"


def test_key_points_of_yolo_are_no_polygon(tmp_path):
    root = tmp_path / "set"
    made.picture(root / "images" / "a.jpg")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5 0.9 0.9 0.95 0.9\n")
    (root / "data.yaml").write_text("train: images\nkpt_shape: [2, 2]\nnames: [no]\n")
    index = open_boxes(str(root), Said(), test_set="none").train
    assert index.truth(0).boxes.tolist() == [[10, 7.5, 30, 22.5]] and index.classes == ("no",), "no is not false"


def test_labels_beside_pictures_with_a_list_of_classes_are_yolo(tmp_path):
    """As labelImg leaves them."""
    for seed, name in enumerate("abcd"):
        made.picture(tmp_path / f"{name}.png", seed)
        made.yolo_txt(tmp_path / f"{name}.txt", OBJECTS[name], NAMES)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert layout_of(tmp_path) == "YOLO"
    assert found(open_boxes(str(tmp_path), Said(), test_set="none").train) == expected("abcd")


def test_a_folder_in_two_layouts_is_read_in_one_and_that_is_said(tmp_path):
    root, said = coco(tmp_path / "set"), Said()
    made.yolo_txt(root / "labels" / "train2017" / "a.txt", OBJECTS["a"], NAMES)
    made.picture(root / "train2017" / "unlisted.jpg")
    assert found(open_boxes(str(root), said).train) == expected(TRAIN)
    assert "read as COCO JSON; its YOLO files are not read" in said.text
    assert "4 of the 5 pictures in the folder are used" in said.text
    assert "captions_train2017.json" in said.text


def test_folders_of_images_are_not_taken_for_data_with_boxes(tmp_path):
    """Nor are those with captions, with tables beside them, or with a class that is called labels."""
    root = images.write_folder(tmp_path / "classes", {"images": 3, "labels": 3, "annotations": 2})
    (root / "labels" / "notes.txt").write_text("bought in 2019\n")
    (root / "classes.txt").write_text("images\nlabels\n")
    (root / "annotations.json").write_text('{"images": 5}')
    captions = tmp_path / "captions"
    for number in range(3):
        made.picture(captions / "train" / "cat" / f"{number}.jpg", number)
        (captions / "train" / "cat" / f"{number}.txt").write_text("a cat on a mat, 4 legs\n")
    (captions / "annotations.xml").write_text("<annotations><version>1.1</version></annotations>")
    assert layout_of(root) is None and layout_of(captions) is None and not is_boxes(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="has no boxes in a layout that is known"):
        open_boxes(str(root), Said())


def test_the_real_sets_have_the_objects_that_a_few_lines_count(real_data):
    """bccd has two boxes of no size, which are left out; the files are read here in another way."""
    for name, left_out in (("bccd", 2), ("cards", 0)):
        parts = open_boxes(str(real_data / name), Said())
        counts = dict.fromkeys(parts.train.classes, 0)
        for file in (real_data / name / "Annotations").glob("*.xml"):
            for label in re.findall(r"<object>\s*<name>(.*?)</name>", file.read_text()):
                counts[label] += 1
        held = sum(part.objects.labels.bincount(minlength=len(counts)) for part in parts)
        assert sum(counts.values()) - int(held.sum()) == left_out
        assert all(count >= own for count, own in zip(counts.values(), held.tolist(), strict=True))
        for part, file in zip(parts, ("trainval", "test"), strict=True):
            listed = (real_data / name / "ImageSets" / "Main" / f"{file}.txt").read_text().split()
            assert [Path(own).stem for own in part.names] == listed
    stored = json.loads((real_data / "coco128" / "annotations" / "instances_train2017.json").read_text())
    parts = open_boxes(str(real_data / "coco128"), Said())
    assert sum(map(len, parts)) == 128 and sum(len(part.objects) for part in parts) == len(stored["annotations"])
    assert int(sum(part.objects.crowd.sum() for part in parts)) == sum(own["iscrowd"] for own in stored["annotations"])
    assert list(parts.train.category_ids) == [own["id"] for own in stored["categories"]]
    for part in parts:
        for place, image in enumerate(part.image_ids.tolist()):
            own = [entry["bbox"] for entry in stored["annotations"] if entry["image_id"] == image]
            boxes = torch.tensor([(x, y, x + width, y + height) for x, y, width, height in own]).view(-1, 4)
            assert torch.allclose(part.truth(place).boxes, boxes, atol=0.01)
