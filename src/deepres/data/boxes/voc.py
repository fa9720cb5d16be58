"""PASCAL VOC: one XML file for each picture; image sets are lists of names, or folders named after parts."""

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from deepres.data.boxes.safe_xml import read_xml
from deepres.data.boxes.scenes import Content, Fault, Object, Scene, Source
from deepres.data.boxes.tree import Tree, by_last
from deepres.data.part_names import part_name
from deepres.data.walk import composed
from deepres.runtime.errors import reason_of
from deepres.runtime.files import listed_names, read_bytes

LAYOUT = "Pascal VOC"
SETS = "ImageSets"
YEAR = re.compile(r"VOC(\d{4})")
MOST_LIST = 2**26  # bytes of a list of names
SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_source(tree: Tree) -> Source:
    """A data set in VOC's layout.

    Its sets are the files in `ImageSets/Main/`, of a development kit of several years with the year before
    ("2007:trainval"); without these the folders named after parts; without these it has one. An XML file belongs to the
    pictures of its name, in folders such as `JPEGImages/` and `Annotations/` or beside each other, else to that which
    its `filename` names. Raises `OSError`.
    """
    reader = _Reader(tree)
    lists = [name for name in tree.names if SETS in name.split("/")[:-1] and name.lower().endswith(".txt")]
    sets = _listed(tree, lists, reader) or by_folder(
        {key: key for key in reader.annotations}, reader.read, {key: key for key in tree.pictures}
    )
    return Source(LAYOUT, tree.root, tree.files, sets, notes=tree.notes)


def by_folder(
    keys: Iterable[str], read: Callable[[list[str]], Content], more: Iterable[str] = ()
) -> dict[str, Callable[[], Content]]:
    """A set for each folder in the keys that is named after a part, "train/1" being in "train"; else one for all.

    `read(keys)` reads a set. The keys in `more` are added, each once.
    """
    sets: dict[str, list[str]] = {}
    for key in dict.fromkeys([*keys, *more]):
        names = map(part_name, folders := key.split("/")[:-1])
        own = next((folder for folder, name in zip(folders, names, strict=True) if name and name.is_plain), "")
        sets.setdefault(own, []).append(key)
    return {name: partial(read, own) for name, own in sets.items()}


def _listed(tree: Tree, lists: list[str], reader: "_Reader") -> dict[str, Callable[[], Content]]:
    """The image sets that are lists of names."""
    homes = {name: name.split(f"{SETS}/")[0] for name in lists}
    several = len(set(homes.values())) > 1
    found: dict[str, Callable[[], Content]] = {}
    for name, home in sorted(homes.items()):
        folder, _, file = name.rpartition("/")
        if folder.rpartition("/")[2] not in ("Main", SETS):
            continue  # Layout, Segmentation and Action are of other tasks
        year = YEAR.search(home)
        before = f"{year[1] if year else home.rstrip('/')}:" if several else ""
        found[before + file[:-4]] = partial(_of_list, tree.root / name, home, reader)
    return found


def _of_list(file: Path, home: str, reader: "_Reader") -> Content:
    """The pictures whose names are the first words of the lines; a second word -1 means without the class."""
    prefix = "/".join(folder for folder in home.split("/") if folder)
    names = [line.split()[0] for line in listed_names(read_bytes(file, MOST_LIST))]
    return reader.read([composed(f"{prefix}/{name}" if prefix else name) for name in names])


class _Reader:
    """Reads annotations of a data set by their keys."""

    def __init__(self, tree: Tree) -> None:
        self.root, self.pictures = tree.root, tree.pictures
        self.annotations = {key: names[0] for key, names in tree.ending(".xml").items()}
        # The picture of an annotation whose key is that of none, by the name in the file.
        self.by_name = by_last(self.pictures)
        self.nested = by_last(self.annotations)

    def read(self, keys: list[str]) -> Content:
        """The pictures with these keys."""
        found = Content()
        for key in keys:
            self._add(key, found)
        return found

    def _add(self, key: str, found: Content) -> None:
        """Add the picture with this key, or why it is left out."""
        own = self.annotations.get(key) or self.annotations.get(self.nested.get(key.rpartition("/")[2], ""))
        if own is None:
            names = self.pictures.get(key)
            kind = ("unannotated", "it has no annotation") if names else ("missing", "it is listed, but not there")
            found.faults.append(Fault(names[0] if names else key, *kind))
            return
        # Read the annotation.
        try:
            annotation = read_xml(self.root / own)
            if annotation.tag != "annotation":
                raise ValueError(f"its root is <{annotation.tag}>, not <annotation>")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else reason_of(error)
            found.faults.append(Fault(own, "unread", reason))
            return
        # Find the picture, and the objects in it.
        named = composed(_text(annotation, "filename").replace("\\", "/").rpartition("/")[2])
        stem = self.by_name.get(named.rpartition(".")[0] or named, "")
        names = self.pictures.get(key) or self.pictures.get(stem)
        if not names:
            found.faults.append(Fault(own, "missing", f"the picture {named or key} of this annotation is not there"))
            return
        objects = [made for each in annotation.iterfind("object") if (made := _object(each, own, found))]
        for name in names:
            size = _size(annotation)
            found.scenes.append(Scene(self.root / name, composed(name), key, own, objects, size))


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
