"""Make pictures with objects of one class of a set with several: python tools/crop_objects.py FOLDER OUT CLASS...

FOLDER is laid out as PASCAL VOC, with image sets trainval and test. Around each object of the CLASSes a window of
288x288 pixels is cut at a random place that holds the object; the objects of its class that are whole inside are
annotated. OUT is laid out the same way.
"""

import random
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PIL import Image

SIZE, MARGIN = 288, 4  # pixels a side of a window, and between an object and its border
ENDS = ("xmin", "ymin", "xmax", "ymax")
Box = tuple[int, ...]


def objects(file: Path) -> list[tuple[str, Box]]:
    """Name and box of each object that has width and height."""
    found = []
    for own in ElementTree.parse(file).iter("object"):
        box = tuple(int(own.findtext(f"bndbox/{end}", "0")) for end in ENDS)
        if box[2] > box[0] and box[3] > box[1]:
            found.append((own.findtext("name", ""), box))
    return found


def window(box: Box, size: tuple[int, int], generator: random.Random) -> tuple[int, int] | None:
    """The left upper corner of a window around a box, in a picture of `size` (width, height); None without room."""
    ranges = [
        (max(0, high - SIZE + MARGIN), min(length - SIZE, low - MARGIN))
        for low, high, length in zip(box[:2], box[2:], size, strict=True)
    ]
    if any(first > last for first, last in ranges):
        return None
    left, top = (generator.randint(first, last) for first, last in ranges)
    return left, top


def annotation(name: str, label: str, boxes: list[Box]) -> str:
    """An annotation as VOC has it."""
    told = ""
    for box in boxes:
        ends = "".join(f"<{end}>{value}</{end}>" for end, value in zip(ENDS, box, strict=True))
        told += f"<object><name>{label}</name><bndbox>{ends}</bndbox></object>"
    size = f"<size><width>{SIZE}</width><height>{SIZE}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{told}</annotation>"


def cut(root: Path, out: Path, name: str, label: str, generator: random.Random) -> list[str]:
    """Cut the windows around the objects of a class in a picture; gives their names."""
    image = Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB")
    boxes = [box for own, box in objects(root / "Annotations" / f"{name}.xml") if own == label]
    made = []
    for number, box in enumerate(boxes):
        corner = window(box, image.size, generator)
        if corner is None:
            continue
        left, top = corner
        moved = [(own[0] - left, own[1] - top, own[2] - left, own[3] - top) for own in boxes]
        whole = [own for own in moved if min(own[:2]) >= 1 and max(own[2:]) <= SIZE]
        new = f"{name}-{label}{number}"
        image.crop((left, top, left + SIZE, top + SIZE)).save(out / "JPEGImages" / f"{new}.jpg", quality=92)
        (out / "Annotations" / f"{new}.xml").write_text(annotation(new, label, whole), encoding="utf-8")
        made.append(new)
    return made


def main(root: Path, out: Path, labels: list[str]) -> None:
    generator = random.Random(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (out / folder).mkdir(parents=True)
    for part in ("trainval", "test"):
        names = (root / "ImageSets" / "Main" / f"{part}.txt").read_text(encoding="utf-8").split()
        made = [new for name in names for label in labels for new in cut(root, out, name, label, generator)]
        (out / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join([*made, ""]), encoding="utf-8")
        print(f"{part}: {len(made)} windows")


main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
