"""Small data sets of drawn shapes, on which every table and figure runs at the smoke scale without a download."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Literal
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFilter

from deepres.runtime.files import unfinished

DataKind = Literal["images", "photographs", "boxes", "objects", "masks"]
# What a sheet may take, and how it is told to users.
TAKEN: Mapping[DataKind, str] = {
    "images": "small images",
    "photographs": "photographs in a folder a class",
    "boxes": "pictures with boxes",
    "objects": "pictures of one object with its box",
    "masks": "pictures with masks",
}
Box = tuple[int, int, int, int]  # the first and the last pixel of both axes, counted from 0
SHAPES = ("circle", "cross", "diamond", "ring", "square", "triangle")
TRAINED, TESTED = 12, 4  # pictures of a class, and of each class in data with boxes
SMALL, LARGE = (32, 32), (128, 96)  # width and height
MOST, MASKED = 4, 2  # shapes of a picture with boxes, and of one with masks, at most


def drawn(kind: DataKind, root: Path) -> Path:
    """The data set of drawn shapes of this kind in `root`, which is made where it is not there.

    The same kind is the same pictures everywhere. Raises `OSError` where it cannot be written.
    """
    place = root / f"drawn-{kind}"
    if not place.exists():
        with unfinished(place) as partial:
            MAKERS[kind](partial)
            partial.rename(place)
    return place


def _classes(size: tuple[int, int]) -> Callable[[Path], None]:
    """How class folders of pictures of this size are written."""

    def write(root: Path) -> None:
        for number, name in enumerate(SHAPES):
            for part, count in (("train", TRAINED), ("test", TESTED)):
                folder = root / part / name
                folder.mkdir(parents=True)
                for place in range(count):
                    picture, _ = _picture(Random(f"{name} {part} {place}"), size, [number])
                    picture.save(folder / f"{place:02}.png")

    return write


def _voc(most: int, masks: bool = False) -> Callable[[Path], None]:
    """How a folder of PASCAL VOC is written, whose pictures have up to so many shapes each, and perhaps their masks."""

    def write(root: Path) -> None:
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main", *["SegmentationObject"] * masks):
            (root / folder).mkdir(parents=True)
        for part, count in (("trainval", TRAINED), ("test", TESTED)):
            names = [f"{part}-{place:02}" for place in range(count * len(SHAPES) // 2)]
            for place, name in enumerate(names):
                random = Random(f"{name} {most}")
                others = [random.randrange(len(SHAPES)) for _ in range(random.randrange(most))]
                picture, boxes = _picture(random, LARGE, [place % len(SHAPES), *others])
                picture.save(root / "JPEGImages" / f"{name}.png")
                (root / "Annotations" / f"{name}.xml").write_text(_annotation(name, boxes), encoding="utf-8")
                if masks:
                    _numbered(boxes).save(root / "SegmentationObject" / f"{name}.png")
            (root / "ImageSets" / "Main" / f"{part}.txt").write_text(
                "".join(f"{name}\n" for name in names), encoding="utf-8"
            )

    return write


MAKERS: Mapping[DataKind, Callable[[Path], None]] = {
    "images": _classes(SMALL),
    "photographs": _classes(LARGE),
    "boxes": _voc(MOST),
    "objects": _voc(1),
    "masks": _voc(MASKED, masks=True),
}


def _picture(random: Random, size: tuple[int, int], shapes: list[int]) -> tuple[Image.Image, list[tuple[str, Box]]]:
    """A picture of these shapes on a blurred ground, and the box of each."""
    width, height = size
    ground = Image.frombytes("RGB", (8, 8), random.randbytes(192)).resize(size)
    picture = ground.filter(ImageFilter.GaussianBlur(2))
    brush, boxes = ImageDraw.Draw(picture), list[tuple[str, Box]]()
    for shape in shapes:
        side = random.randint(min(size) // 3, min(size) // 2)
        left, top = random.randint(0, width - side - 1), random.randint(0, height - side - 1)
        colour = tuple(random.randint(0, 255) for _ in range(3))
        box = left, top, left + side, top + side
        _draw(brush, SHAPES[shape], box, colour)
        boxes.append((SHAPES[shape], box))
    return picture, boxes


def _numbered(boxes: list[tuple[str, Box]]) -> Image.Image:
    """The picture of the numbers of the shapes, from 1 on: where two overlap, the second is seen."""
    numbers = Image.new("L", LARGE)
    for number, (shape, box) in enumerate(boxes, start=1):
        _draw(ImageDraw.Draw(numbers), shape, box, number)
    return numbers


def _draw(brush: ImageDraw.ImageDraw, shape: str, box: Box, colour: tuple[int, ...] | int) -> None:
    """Draw a shape that touches all sides of its box."""
    left, top, right, bottom = box
    across, down = (left + right) // 2, (top + bottom) // 2
    third = (right - left) // 3
    if shape == "circle":
        brush.ellipse(box, fill=colour)
    elif shape == "ring":
        brush.ellipse(box, outline=colour, width=max(2, third // 2))
    elif shape == "square":
        brush.rectangle(box, fill=colour)
    elif shape == "cross":
        brush.rectangle((left + third, top, right - third, bottom), fill=colour)
        brush.rectangle((left, top + third, right, bottom - third), fill=colour)
    elif shape == "diamond":
        brush.polygon([(across, top), (right, down), (across, bottom), (left, down)], fill=colour)
    else:
        brush.polygon([(across, top), (right, bottom), (left, bottom)], fill=colour)


def _annotation(name: str, boxes: list[tuple[str, Box]]) -> str:
    """The XML of PASCAL VOC, whose pixels are counted from 1."""
    objects = "".join(
        f"<object><name>{escape(shape)}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right + 1}</xmax><ymax>{bottom + 1}</ymax></bndbox></object>\n"
        for shape, (left, top, right, bottom) in boxes
    )
    size = "<size><width>{}</width><height>{}</height><depth>3</depth></size>".format(*LARGE)
    return f"<annotation>\n<filename>{name}.png</filename>\n{size}\n{objects}</annotation>\n"
