"""PASCAL VOC: one XML file for each picture; image sets are lists of names, or folders named after parts.

Masks are pictures of object numbers in `SegmentationObject/`.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from deepres.data.boxes.annotations import AnnotatedPicture, Content, Fault, Object, Source, merged, seconds
from deepres.data.boxes.safe_xml import read_xml
from deepres.data.boxes.tree import Tree, by_folder, by_last, key_of, lines_in, mask_key
from deepres.data.boxes.voc_masks import with_masks
from deepres.data.part_names import is_picture
from deepres.data.rgb import fault
from deepres.data.walk import composed

LAYOUT = "Pascal VOC"
SETS = "ImageSets"
LIST = re.compile(rf"(.*/)?{SETS}(/Main)?/[^/]+\.txt")
CLASS_FLAG = re.compile(r"\s+(-1|0|1)$")
MASK_LIST = re.compile(rf"(.*/)?{SETS}/Segmentation/[^/]+\.txt")
YEAR = re.compile(r"VOC(\d{4})")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_source(tree: Tree, masks: bool = False) -> Source:
    """A data set in VOC's layout.

    Its sets are the files in `ImageSets/Main/`, of a development kit of several years with the year before
    ("2007:trainval"); without these the folders named after parts; without these it has one. An XML file belongs to the
    pictures of its name, in folders such as `JPEGImages/` and `Annotations/` or beside each other, else to that which
    its `filename` names. With `masks`, the lists in `ImageSets/Segmentation/` come first, where there are any, since
    only their pictures have masks. Raises `OSError`.
    """
    reader = _Reader(tree, masks)
    lists = [name for name in tree.names if MASK_LIST.fullmatch(name)] if reader.masks else []
    sets, year = _listed(tree, reader, lists or [name for name in tree.names if LIST.fullmatch(name)])
    if not sets:
        sets = by_folder([*reader.annotations, *tree.pictures], reader.read)
    return Source(
        LAYOUT,
        tree.root,
        tree.files,
        tree.count,
        sets,
        notes=tree.notes,
        year=year,
        shared=True,
        faults=tuple(reader.faults),
        masks=bool(reader.masks),
    )


def _listed(tree: Tree, reader: "_Reader", files: list[str]) -> tuple[dict[str, Callable[[], Content]], str]:
    """The image sets that are lists of names, in these files, and the year where they are of one.

    Layout and Action have the lists of other tasks.
    """
    homes = {name: name[: name.index(SETS)].rstrip("/") for name in files}
    years = {home: "".join(YEAR.findall(f"{tree.root.name}/{home}")[-1:]) for home in homes.values()}
    # Several homes are told apart by their years, or else by their folders.
    by_year = len(set(years.values()) - {""}) == len(years)
    labels = {home: f"{year if by_year else home}:" if len(years) > 1 else "" for home, year in years.items()}
    sets = {
        labels[home] + Path(name).stem: partial(_of_list, tree.root / name, home, reader)
        for name, home in homes.items()
    }
    return sets, next(iter(years.values())) if len(years) == 1 else ""


def _of_list(file: Path, home: str, reader: "_Reader") -> Content:
    """The pictures of a list. Its lines begin with their names; those of a class go on with 1 or -1."""
    names = [CLASS_FLAG.sub("", line.strip()) for line in lines_in(file)]
    keys = (key_of(f"{home}/{name}".lstrip("/") + "." * (not is_picture(name))) for name in names)
    return reader.read(list(dict.fromkeys(keys)))


class _Reader:
    """Reads annotations of a data set by their keys."""

    def __init__(self, tree: Tree, masks: bool) -> None:
        self.root, self.pictures = tree.root, tree.pictures
        named = {mask_key(name): name for name in tree.names} if masks else {}
        self.masks = {key: name for key, name in named.items() if key is not None}
        found = tree.ending(".xml")
        self.annotations = {key: names[0] for key, names in found.items()}
        self.faults = seconds(found, self.annotations)
        self.known: dict[str, Content] = {}  # image sets share pictures, and each is read once
        # The picture of an annotation whose key is that of none, by the name in the file.
        self.by_name = by_last(self.pictures)

    def read(self, keys: list[str]) -> Content:
        """The pictures with these keys."""
        found = Content()
        for key in keys:
            if key not in self.known:
                self.known[key] = self._one(key)
            own = self.known[key]
            found.annotated += own.annotated
            found.faults += own.faults
        named = {picture.name for picture in found.annotated}  # also those of annotations of another name
        found.faults = [own for own in found.faults if own.kind != "unannotated" or own.name not in named]
        return found

    def _one(self, key: str) -> Content:
        """The picture with this key, or why it is left out."""
        name = self.annotations.get(key)
        if name is None:
            names = self.pictures.get(key)
            kind = ("unannotated", "it has no annotation") if names else ("missing", "it is listed, but not there")
            return Content(faults=[Fault(names[0] if names else key, *kind)])
        # Read the annotation.
        try:
            annotation = read_xml(self.root / name)
            if annotation.tag != "annotation":
                raise ValueError(f"its root is <{annotation.tag}>, not <annotation>")
        except (OSError, ValueError) as error:
            return Content(faults=[Fault(name, "unread", fault(error))])
        # Find the picture, and the objects in it.
        named = composed(_text(annotation, "filename").replace("\\", "/").rpartition("/")[2])
        stem = self.by_name.get(named.rpartition(".")[0] or named, "")
        names = self.pictures.get(key) or self.pictures.get(stem)
        if not names:
            reason = f"the picture {named or key} of this annotation is not there"
            return Content(faults=[Fault(name, "missing", reason)])
        names = [own for own in names if own.rpartition("/")[2] == named] or names
        found, size = Content(), _size(annotation)
        objects = [made for each in annotation.iterfind("object") if (made := _object(each, name, found))]
        if mask := self.masks.get(key):
            objects = with_masks(objects, self.root, mask, found.faults)
        for own in names:
            found.annotated.append(AnnotatedPicture(self.root / own, composed(own), key, name, objects, size))
        found.faults = merged(found.faults)
        return found


def _object(element: Element, source: str, found: Content) -> Object | None:
    """One object; None where it has no name or no box, which is a fault.

    Parts of objects (`part`), which have boxes of their own, are not read.
    """
    name, bounds = composed(_text(element, "name")), element.find("bndbox")
    try:
        if not name or bounds is None:
            raise ValueError("an object has no name" if not name else f"an object {name!r} has no bndbox")
        sides = [_number(bounds, side) for side in SIDES]
    except ValueError as error:
        found.faults.append(Fault(source, "object", str(error)))
        return None
    left, top, right, bottom = sides
    if 0 <= min(left, top) < 1:
        found.faults.append(Fault(source, "zero", "a box begins at pixel 0"))
    box = _begin(left, right), _begin(top, bottom), right, bottom
    return Object(name, box, difficult=_text(element, "difficult").strip() in ("1", "true", "True"))


def _begin(least: float, most: float) -> float:
    """The left or top end of a box in continuous coordinates: `least` is a pixel that lies inside, counted from 1.

    A box whose ends are equal is one pixel wide by this rule; but it is what a click leaves, and so has no width here.
    Pixel 0, of labels that are counted from 0, is cut at the border.
    """
    if least >= most:
        return least
    return max(least - 1, 0) if least >= 0 else least - 1


def _number(box: Element, side: str) -> float:
    text = _text(box, side)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"a box has {side} {text[:20]!r}, not a number")
    return value


def _size(annotation: Element) -> tuple[int, int] | None:
    """Width and height in the annotation; None where they are not there, or not above 0."""
    try:
        width, height = (int(float(_text(annotation, f"size/{side}"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()
