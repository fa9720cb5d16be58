"""Small data sets with boxes for the tests, in every layout, as labelImg, CVAT, Roboflow and Ultralytics write them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import images

Box = tuple[float, float, float, float]  # left, top, right, bottom in continuous coordinates
Objects = Sequence[tuple[str, Box]]
SIZE = (40, 30)  # width and height of the pictures


def picture(file: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """A picture of noise in a file of any suffix that Pillow knows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images.picture(seed, size).save(file)
    return file


def voc_object(name: str, box: Box, more: str = "") -> str:
    """An object in VOC's XML, whose ends are pixels counted from 1."""
    left, top, right, bottom = box
    sides = f"<xmin>{left + 1:g}</xmin><ymin>{top + 1:g}</ymin><xmax>{right:g}</xmax><ymax>{bottom:g}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


def voc_xml(file: Path, inside: str, size: tuple[int, int] | None = SIZE, filename: str = "") -> Path:
    """An annotation of VOC with these objects."""
    file.parent.mkdir(parents=True, exist_ok=True)
    given = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    file.write_text(f"<annotation><filename>{filename or file.stem + '.jpg'}</filename>{given}{inside}</annotation>")
    return file


def write_voc(root: Path, objects: Mapping[str, Objects], sets: Mapping[str, Iterable[str]] | None = None) -> Path:
    """A folder of VOC: the objects of each picture, and lists of pictures."""
    for seed, (name, own) in enumerate(objects.items()):
        picture(root / "JPEGImages" / f"{name}.jpg", seed)
        voc_xml(root / "Annotations" / f"{name}.xml", "".join(voc_object(*each) for each in own))
    for name, members in (sets or {}).items():
        file = root / "ImageSets" / "Main" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{member}\n" for member in members))
    return root


def coco_json(
    file: Path, objects: Mapping[str, Objects], ids: Mapping[str, int], first: int = 1, **more: object
) -> Path:
    """A JSON file of COCO: pictures by file name, `ids` those of the classes, image ids from `first` on."""
    listed = [
        {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        for number, name in enumerate(objects, start=first)
    ]
    every = [(number, *each) for number, own in enumerate(objects.values(), start=first) for each in own]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": ids[name],
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
            "segmentation": [[left, top, right, top, right, bottom]],
        }
        for number, (image, name, (left, top, right, bottom)) in enumerate(every)
    ]
    categories = [{"id": number, "name": name, "supercategory": "none"} for name, number in ids.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories} | more))
    return file


def yolo_line(number: int, box: Box, size: tuple[int, int] = SIZE) -> str:
    """A line of YOLO: the class, then centre, width and height in units of the picture."""
    (left, top, right, bottom), (width, height) = box, size
    values = (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height
    return " ".join([str(number), *(f"{value:.8f}" for value in values)]) + "\n"


def yolo_txt(file: Path, objects: Objects, names: Sequence[str]) -> Path:
    """The labels of one picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(yolo_line(names.index(name), box) for name, box in objects))
    return file
