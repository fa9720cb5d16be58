"""Small folders of ImageNet detection for the tests, as ILSVRC 2015 lays them out, and as its archives of 2014."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import box_folders as made

SYNSETS = {"n02672831": "accordion", "n02691156": "airplane", "n02219486": "ant", "n04557648": "water_bottle"}


def det_object(synset: str, box: made.Box) -> str:
    """An object whose ends are pixels counted from 0."""
    left, top, right, bottom = box
    return made.voc_object(synset, (left - 1, top - 1, right - 1, bottom - 1))


def annotated(pictures: Path, annotations: Path, objects: Mapping[str, made.Objects]) -> None:
    """Pictures with annotations of these objects, by their names within both folders."""
    for seed, (name, own) in enumerate(objects.items()):
        made.picture(pictures / f"{name}.JPEG", seed)
        inside = "".join(det_object(*each) for each in own)
        made.voc_xml(annotations / f"{name}.xml", inside, filename=name.rpartition("/")[2])


def write_list(file: Path, names: Iterable[str]) -> None:
    """A list of pictures with their numbers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name} {number}\n" for number, name in enumerate(names, start=1)))


def write_map(file: Path, synsets: Mapping[str, str]) -> None:
    """The devkit's list of classes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{synset} {number} {name}\n" for number, (synset, name) in enumerate(synsets.items(), start=1))
    file.write_text("".join(lines))


def write_det(
    root: Path,
    train: Mapping[str, made.Objects],
    val: Mapping[str, made.Objects],
    synsets: Mapping[str, str] = SYNSETS,
) -> Path:
    """The layout of 2015: both parts, a list of val, a negative training picture, a picture to test, the classes."""
    for part, objects in (("train", train), ("val", val)):
        annotated(root / "Data" / "DET" / part, root / "Annotations" / "DET" / part, objects)
    made.picture(root / "Data" / "DET" / "train" / "ILSVRC2013_DET_train_extra0" / "ILSVRC2013_train_1.JPEG")
    made.picture(root / "Data" / "DET" / "test" / "ILSVRC2015_test_1.JPEG")
    sets = root / "ImageSets" / "DET"
    write_list(sets / "val.txt", val)
    write_list(sets / "test.txt", ["ILSVRC2015_test_1"])
    (sets / "train_1.txt").write_text("ILSVRC2013_DET_train_extra0/ILSVRC2013_train_1 -1\n")
    write_map(root / "devkit" / "data" / "map_det.txt", synsets)
    return root
