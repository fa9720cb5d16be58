"""What the annotations of a data set say, before its pictures are read; and what is wrong with them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from deepres.data.boxes.outlines import Outline
from deepres.runtime.errors import few

Box = tuple[float, float, float, float]  # left, top, right, bottom: see `truth`
Kind = Literal[
    "picture",
    "missing",
    "unannotated",
    "unread",
    "stray",
    "size",
    "object",
    "mask",
    "flat",
    "outside",
    "doubled",
    "zero",
]
# What is said of each kind when the data are opened.
KINDS: dict[Kind, str] = {
    "picture": "pictures that do not open, left out",
    "missing": "pictures that are named but not there",
    "unannotated": "pictures without an annotation, left out",
    "unread": "annotations that cannot be read, left out with their pictures",
    "stray": "annotations that belong to no picture, or to one that has another, left out",
    "size": "annotations that give another size than the picture has; the picture's counts",
    "object": "objects without a known class or a box, left out",
    "mask": "masks that cannot be read, whose objects have boxes alone",
    "flat": "boxes without width or height, left out",
    "outside": "boxes that reach out of the picture, cut at its border",
    "doubled": "boxes that are there more than once, kept once",
    "zero": "boxes that begin at pixel 0, as if counted from 0 and not from 1 as in Pascal VOC, cut at the border",
}
HARMLESS: tuple[Kind, ...] = ("zero",)  # told, but no fault of a file


class Fault(NamedTuple):
    """Something wrong with the file `name` within the data set: why (for the first time), and how often."""

    name: str
    kind: Kind
    reason: str
    times: int = 1


class Object(NamedTuple):
    """One object of a picture. `area` is in square pixels, where the annotation gives that of a mask.

    `outline` is there where masks are asked for and the annotation has one.
    """

    name: str
    box: Box
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    outline: Outline | None = None


class AnnotatedPicture(NamedTuple):
    """One picture and its objects, as the annotation file `source` tells them.

    `name` and `source` are paths within the data set. Of COCO, whose annotations are in one file, `source` is the
    picture. `key` is the name by which data without a test part are divided.
    `size` is the (width, height) that the annotation gives, if it does. The boxes are in pixels, or in units of width
    and height where they are `relative`. `image_id` is COCO's.
    """

    file: Path
    name: str
    key: str
    source: str
    objects: list[Object]
    size: tuple[int, int] | None = None
    relative: bool = False
    image_id: int | None = None


@dataclass
class Content:
    """What one image set says: its pictures, the ids and names of its classes if they are listed, and its faults."""

    annotated: list[AnnotatedPicture] = field(default_factory=list[AnnotatedPicture])
    categories: dict[int, str] = field(default_factory=dict[int, str])
    faults: list[Fault] = field(default_factory=list[Fault])
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Source:
    """A data set with boxes that was found but not read: its layout, and how to read each of its image sets.

    `files` are those that its content depends on, `pictures` the number of pictures among them. A data set that is not
    divided has one set, whose name is "". `year` is that of a VOC data set of one year; of several, the names of the
    sets have it before ("2007:trainval"). Sets of a `shared` source, as trainval and train of VOC, have pictures in
    common. `masks` were asked for, and there are signs of some.
    """

    layout: str
    root: Path
    files: tuple[Path, ...]
    pictures: int
    sets: Mapping[str, Callable[[], Content]]
    division: str | None = None
    notes: tuple[str, ...] = ()
    year: str = ""
    shared: bool = False
    faults: tuple[Fault, ...] = ()  # of files that are in no set
    masks: bool = False


def merged(faults: list[Fault]) -> list[Fault]:
    """The faults with those of one kind in one file together, counted, with the reason of the first."""
    found: dict[tuple[str, Kind], Fault] = {}
    for own in faults:
        first = found.setdefault((own.name, own.kind), own._replace(times=0))
        found[own.name, own.kind] = first._replace(times=first.times + own.times)
    return list(found.values())


def seconds(files: Mapping[str, list[str]], read: Mapping[str, str]) -> list[Fault]:
    """Faults for the annotation files of a picture but that which is read, all by the key of the picture."""
    return [
        Fault(name, "stray", f"its picture has another annotation, {read[key]}")
        for key, names in files.items()
        for name in names
        if key in read and name != read[key]
    ]


def told(faults: list[Fault]) -> list[str]:
    """A sentence for each kind of fault: how many there are, and the first names."""
    counts, names = Counter[str](), dict[str, list[str]]()
    for fault in faults:
        counts[fault.kind] += fault.times
        names.setdefault(fault.kind, []).append(fault.name)
    return [f"{sentence}: {counts[kind]:,} ({few(names[kind])})" for kind, sentence in KINDS.items() if counts[kind]]
