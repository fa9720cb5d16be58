"""COCO: one JSON file for each image set, with the boxes of all its pictures, and with their masks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

from deepres.data.boxes.annotations import AnnotatedPicture, Content, Fault, Object, Source, merged
from deepres.data.boxes.outlines import Outline, Polygons, Runs
from deepres.data.boxes.tree import Tree, by_last, key_of
from deepres.data.part_names import TOKEN, part_name
from deepres.data.walk import class_name, composed
from deepres.runtime.errors import InputError
from deepres.runtime.files import require_regular
from deepres.runtime.untrusted import Meta, Raw, read_large, read_raw

LAYOUT = "COCO JSON"
MOST_BYTES = 2**31
PEEK = 2**16  # bytes at both ends of a file, among which are the names of its lists
KEYS = (b'"images"', b'"annotations"', b'"categories"')
MEANINGLESS = {"instances", "annotations", "annotation", "coco", "labels", "result", "json"}
FOLDERS = ("images", "", "data", "JPEGImages", "imgs")
SEGMENTATION = b'"segmentation"'
MEND = "write it anew, as COCO's instances_NAME.json"
Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Image(TypedDict):
    id: Id
    file_name: str
    width: NotRequired[float | None]
    height: NotRequired[float | None]


class _Annotation(TypedDict):
    image_id: Id
    category_id: Id
    bbox: NotRequired[list[float] | None]
    area: NotRequired[float | None]
    iscrowd: NotRequired[int | bool | None]


class _MaskedAnnotation(_Annotation):
    segmentation: NotRequired[Raw]  # parsed one by one, since all of COCO as numbers of Python fill memory


class _Runs(TypedDict):
    counts: list[int] | str
    size: Annotated[list[int], Meta(min_length=2, max_length=2)]


class _Category(TypedDict):
    id: Id
    name: str


class _Coco(TypedDict):
    images: list[_Image]
    annotations: NotRequired[list[_Annotation]]
    categories: NotRequired[list[_Category]]


class _MaskedCoco(TypedDict):
    images: list[_Image]
    annotations: NotRequired[list[_MaskedAnnotation]]
    categories: NotRequired[list[_Category]]


def is_coco(file: Path) -> bool:
    """Whether a JSON file has the lists of COCO, by its first and last bytes."""
    ends = ends_of(file)
    return sum(key in ends for key in KEYS) >= 2


def ends_of(file: Path) -> bytes:
    """The first and the last bytes of a file; none of what cannot be read."""
    try:
        require_regular(file)
        with file.open("rb") as stream:
            first = stream.read(PEEK)
            stream.seek(max(file.stat().st_size - PEEK, 0))
            return first + stream.read(PEEK)
    except OSError:
        return b""


def coco_source(tree: Tree, masks: bool = False) -> Source:
    """A data set in COCO's layout: a set for each JSON file, with the name of its file or its folder.

    `instances_train2017.json` is "train2017", `valid/_annotations.coco.json` is "valid". Where there are instances, the
    other files (captions, key points) are not read. The pictures lie in a folder of the set's name, in `images/`, or
    beside the JSON. Raises `OSError`.
    """
    files = [name for name in tree.names if name.lower().endswith(".json") and is_coco(tree.root / name)]
    instances = [name for name in files if name.rpartition("/")[2].startswith("instances_")]
    other = sorted(set(files) - set(instances)) if instances else []
    sets: dict[str, Callable[[], Content]] = {}
    masked = masks and any(SEGMENTATION in ends_of(tree.root / name) for name in instances or files)
    reader = _Reader(tree, masked)
    for name in instances or files:
        own = _set_name(name)
        sets[own if own not in sets else name] = partial(reader.read, name, own)
    notes = (*tree.notes, *[f"not read, since there are instances: {', '.join(other)}"] * bool(other))
    return Source(LAYOUT, tree.root, tree.files, tree.count, sets, notes=notes, masks=masked)


def _set_name(name: str) -> str:
    """The name of the set in a JSON file; "" where neither file nor folder says one."""
    *folders, file = name.split("/")
    stem = file.rpartition(".")[0].removeprefix("instances_")
    words = [word for word in TOKEN.findall(stem) if word.casefold() not in MEANINGLESS]
    part = part_name(" ".join(words))
    if part is not None and part.is_plain:
        return "".join(words)
    folder = part_name(folders[-1]) if folders else None
    return folders[-1] if folder is not None and folder.is_plain else stem if words else ""


class _Reader:
    """Reads the sets of a data set, and finds their pictures among its files."""

    def __init__(self, tree: Tree, masks: bool) -> None:
        self.root, self.masks = tree.root, masks
        self.files = {composed(name): name for own in tree.pictures.values() for name in own}
        self.by_name = by_last(self.files)

    def read(self, file: str, name: str) -> Content:
        """The pictures and objects of one JSON file. Raises `InputError` where it cannot be read."""
        stored: _MaskedCoco | _Coco = read_large(
            self.root / file, _MaskedCoco if self.masks else _Coco, MEND, most=MOST_BYTES
        )
        found = Content()
        for own in stored.get("categories", ()):
            named = class_name(own["name"], self.root / file)
            if found.categories.setdefault(own["id"], named) != named:
                raise InputError(f"{self.root / file} has two classes of the id {own['id']}; {MEND}")
        # The objects of each picture.
        objects = {image["id"]: list[Object]() for image in stored["images"]}
        if len(objects) < len(stored["images"]):
            raise InputError(f"{self.root / file} has two images of one id; {MEND}")
        for own in stored.get("annotations", ()):
            made = _object(own, found.categories)
            if isinstance(made, Object) and own["image_id"] in objects:
                objects[own["image_id"]].append(self._with_mask(made, own, file, found))
                continue
            kind, reason = ("object", made) if isinstance(made, str) else ("stray", "an image that is not listed")
            found.faults.append(Fault(file, kind, f"{reason} (image {own['image_id']})"))
        found.faults = merged(found.faults)
        self._add(stored["images"], objects, (file, name), found)
        return found

    def _add(
        self, images: list[_Image], objects: dict[int, list[Object]], where: tuple[str, str], found: Content
    ) -> None:
        """Add the pictures that are there. Entries of the same picture are joined."""
        annotated: dict[str, AnnotatedPicture] = {}
        for image in images:
            own = self._picture(image["file_name"], *where)
            if own is None:
                found.faults.append(
                    Fault(composed(image["file_name"]), "missing", f"it is not there, but {where[0]} lists it")
                )
            elif own in annotated:
                annotated[own].objects.extend(objects[image["id"]])
            else:
                width, height = image.get("width"), image.get("height")
                size = (round(width), round(height)) if width and height else None
                name = composed(own)
                annotated[own] = AnnotatedPicture(
                    self.root / own, name, key_of(own), name, objects[image["id"]], size, image_id=image["id"]
                )
        found.annotated += annotated.values()
        if background := sum(not picture.objects for picture in found.annotated):
            found.notes.append(f"pictures without boxes, kept as background: {background:,} of {where[0]}")

    def _with_mask(self, made: Object, own: _Annotation | _MaskedAnnotation, file: str, found: Content) -> Object:
        """The object with the outline that its annotation has, where masks are asked for."""
        if not self.masks or "segmentation" not in own:
            return made
        try:
            return made._replace(outline=_outline(own["segmentation"]))
        except InputError as error:
            found.faults.append(Fault(file, "mask", f"{error} (image {own['image_id']})"))
            return made

    def _picture(self, named: str, file: str, name: str) -> str | None:
        """The picture of a `file_name` in the JSON `file`; None where there is none."""
        named = composed(named.replace("\\", "/").removeprefix("./"))
        beside = file.rpartition("/")[0]
        for place in dict.fromkeys((beside, beside.rpartition("/")[0], "")):
            for folder in (name, f"images/{name}", *FOLDERS):
                path = "/".join(part for part in (place, folder, named) if part)
                if path in self.files:
                    return self.files[path]
        unique = self.by_name.get(named.rpartition("/")[2])
        return None if unique is None else self.files[unique]


def _object(own: _Annotation, categories: dict[int, str]) -> Object | str:
    """One object, or why there is none. COCO's boxes are left, top, width and height, in continuous coordinates."""
    if own["category_id"] not in categories:
        return f"category {own['category_id']} is not listed"
    box = own.get("bbox")
    if not box or len(box) != 4:
        return "an annotation has no bbox of four numbers"
    left, top, width, height = box
    name, area = categories[own["category_id"]], own.get("area")
    return Object(name, (left, top, left + width, top + height), crowd=bool(own.get("iscrowd")), area=area)


def _outline(segmentation: Raw) -> Outline | None:
    """Polygons, or run lengths; None of an empty segmentation. Raises `InputError` for anything else."""
    kind: Any = list[list[float]] | _Runs | None
    read = read_raw(segmentation, kind, "a segmentation", MEND)
    if not read:
        return None
    if isinstance(read, dict):
        height, width = read["size"]
        counts = read["counts"]
        return Runs(counts.encode("ascii", "replace") if isinstance(counts, str) else counts, (height, width))
    return Polygons([np.array(ring, np.float64) for ring in read])
