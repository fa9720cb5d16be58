"""LabelMe: a JSON file for each picture, with the outlines of its objects."""

import base64
import binascii
import math
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
import torch

from deepres.data.boxes.annotations import AnnotatedPicture, Content, Fault, Object, Source, merged, seconds
from deepres.data.boxes.coco import ends_of, is_coco
from deepres.data.boxes.outlines import Outline, Polygons, Runs
from deepres.data.boxes.tree import Tree, by_folder, by_last
from deepres.data.rgb import fault, max_pixels, open_picture
from deepres.data.walk import composed
from deepres.runtime.errors import InputError
from deepres.runtime.masks import encoded
from deepres.runtime.untrusted import Meta, read_large

LAYOUT = "LabelMe"
MOST_BYTES = 2**28  # a file may hold its picture, too
SIGNS = (b'"imagePath"', b'"imageHeight"', b'"imageData"')
CORNERS = 64  # of the polygon that stands for a circle
POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}  # the least number of points of each kind of shape
EXACT = ("circle", "mask")  # kinds with no more points than that
Point = Annotated[list[float], Meta(min_length=2, max_length=2)]


class _Shape(TypedDict):
    label: str
    points: list[Point]
    shape_type: NotRequired[str | None]
    group_id: NotRequired[int | str | None]
    mask: NotRequired[str | None]


class _LabelMe(TypedDict):
    shapes: list[_Shape]
    imagePath: NotRequired[str | None]
    imageHeight: NotRequired[int | None]
    imageWidth: NotRequired[int | None]


def is_labelme(file: Path) -> bool:
    """Whether a JSON file is LabelMe's, by its first and last bytes."""
    ends = ends_of(file)
    return b'"shapes"' in ends and any(sign in ends for sign in SIGNS) and not is_coco(file)


def labelme_source(tree: Tree, masks: bool = False) -> Source:
    """A data set in LabelMe's layout: the folders named after parts are its sets; without these it has one.

    A JSON file belongs to the picture of its name, else to that which its `imagePath` names. Raises `OSError`.
    """
    reader = _Reader(tree, masks)
    sets = by_folder([*reader.annotations, *tree.pictures], reader.read)
    return Source(
        LAYOUT, tree.root, tree.files, tree.count, sets, notes=tree.notes, faults=tuple(reader.faults), masks=masks
    )


class _Reader:
    """Reads annotations of a data set by their keys."""

    def __init__(self, tree: Tree, masks: bool) -> None:
        self.root, self.pictures, self.masks = tree.root, tree.pictures, masks
        self.beside = tree.ending(".json")  # of which others than LabelMe's may be damaged ones
        found = {key: [name for name in names if is_labelme(tree.root / name)] for key, names in self.beside.items()}
        found = {key: names for key, names in found.items() if names}
        self.annotations = {key: names[0] for key, names in found.items()}
        self.faults = seconds(found, self.annotations)
        self.by_name = by_last(self.pictures)

    def read(self, keys: list[str]) -> Content:
        """The pictures with these keys. One without an annotation is left out, unless it has one of another name."""
        found = Content()
        for key in keys:
            if key in self.annotations:
                self._one(key, self.annotations[key], found)
        named = {picture.name for picture in found.annotated}
        for key in keys:
            names = self.pictures.get(key, [])
            if key not in self.annotations and names and composed(names[0]) not in named:
                other = "".join(f": {name} is not LabelMe's" for name in self.beside.get(key, [])[:1])
                found.faults.append(Fault(names[0], "unannotated", f"it has no annotation{other}"))
        return found

    def _one(self, key: str, name: str, found: Content) -> None:
        """Add the picture of one JSON file, or why it is left out."""
        file = self.root / name
        try:
            read = read_large(file, _LabelMe, "save it anew in LabelMe", most=MOST_BYTES)
        except InputError as error:
            found.faults.append(Fault(name, "unread", str(error).removeprefix(str(file)).lstrip(" ,:")))
            return
        # Find the picture.
        named = composed((read.get("imagePath") or "").replace("\\", "/").rpartition("/")[2])
        names = self.pictures.get(key) or self.pictures.get(self.by_name.get(named.rpartition(".")[0] or named, ""))
        if not names:
            found.faults.append(Fault(name, "missing", f"the picture {named or key} of this annotation is not there"))
            return
        own = next((own for own in names if own.rpartition("/")[2] == named), names[0])
        # The objects in it.
        size = _size(read)
        objects, faults = list[Object](), list[Fault]()
        for shapes in _grouped(read["shapes"]):
            try:
                objects.append(self._object(shapes, size, name, faults))
            except ValueError as error:
                faults.append(Fault(name, "object", str(error)))
        found.faults += merged(faults)
        found.annotated.append(AnnotatedPicture(self.root / own, composed(own), key, name, objects, size))

    def _object(self, shapes: list[_Shape], size: tuple[int, int] | None, name: str, faults: list[Fault]) -> Object:
        """The object of one or several shapes. Raises `ValueError` for what is none."""
        label = composed(shapes[0]["label"].strip())
        if not label:
            raise ValueError("an object has no name")
        rings = [_ring(own) for own in shapes]
        corners = np.concatenate(rings)
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        made = Object(label, (left, top, right, bottom))
        if not self.masks:
            return made
        outline: Outline | None = Polygons([ring.reshape(-1) for ring in rings])
        if _kind(shapes[0]) == "mask":
            try:
                outline = _patch(shapes[0], tuple(map(round, (left, top, right, bottom))), size)
            except ValueError as error:
                faults.append(Fault(name, "mask", str(error)))
                outline = None
        return made._replace(outline=outline)


def _grouped(shapes: list[_Shape]) -> list[list[_Shape]]:
    """The shapes of each object: those with one label and one group are one object. A shape of pixels stands alone."""
    found: dict[Any, list[_Shape]] = {}
    for place, own in enumerate(shapes):
        group = own.get("group_id")
        alone = group is None or _kind(own) == "mask"
        found.setdefault(place if alone else (own["label"], group), []).append(own)
    return list(found.values())


def _kind(shape: _Shape) -> str:
    return shape.get("shape_type") or "polygon"


def _ring(shape: _Shape) -> Any:
    """The corners of the polygon of a shape, float64 (n, 2). Raises `ValueError` for a shape without an area."""
    kind, points = _kind(shape), np.array(shape["points"], np.float64).reshape(-1, 2)
    if kind not in POINTS:
        raise ValueError(f"a shape is a {kind[:20]}, which has no area")
    if len(points) < POINTS[kind] or (kind in EXACT and len(points) > POINTS[kind]):
        raise ValueError(f"a {kind} has {len(points)} points")
    if kind == "polygon":
        return points
    if kind == "circle":
        angles = np.arange(CORNERS) * (2 * math.pi / CORNERS)
        return points[0] + math.dist(*points) * np.stack([np.cos(angles), np.sin(angles)], 1)
    (left, top), (right, bottom) = points.min(0), points.max(0)  # some programs write four corners
    if kind == "mask":  # its points are the first and the last pixel
        right, bottom = right + 1, bottom + 1
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _patch(shape: _Shape, box: tuple[int, ...], size: tuple[int, int] | None) -> Runs:
    """The run lengths of a shape of pixels, a PNG that fills the `box`. Raises `ValueError` for no such."""
    if size is None:
        raise ValueError("a mask in a file without imageHeight and imageWidth")
    try:
        image = open_picture(base64.b64decode(shape.get("mask") or "", validate=True))
        pixels = np.asarray(image) != 0
    except binascii.Error:
        raise ValueError("a mask is not base64") from None
    except Exception as error:  # Pillow raises almost any exception for a damaged picture
        raise ValueError(f"a mask does not decode: {fault(error)}") from None
    (width, height), (left, top, right, bottom) = size, box
    if pixels.ndim != 2 or left < 0 or top < 0 or left + pixels.shape[1] > width or top + pixels.shape[0] > height:
        raise ValueError("a mask reaches out of its picture, or has colours")
    if max(abs(right - left - pixels.shape[1]), abs(bottom - top - pixels.shape[0])) > 1:  # points are rounded
        raise ValueError(
            f"a mask has {pixels.shape[1]}x{pixels.shape[0]} pixels, its points {right - left}x{bottom - top}"
        )
    if not pixels.any():
        raise ValueError("a mask has no pixel")
    canvas = torch.zeros(1, height, width, dtype=torch.uint8)
    canvas[0, top : top + pixels.shape[0], left : left + pixels.shape[1]] = torch.from_numpy(pixels.copy())
    return Runs(encoded(canvas).texts[0], (height, width))


def _size(read: _LabelMe) -> tuple[int, int] | None:
    """Width and height in the annotation; None where they are not there, or senseless."""
    width, height = read.get("imageWidth") or 0, read.get("imageHeight") or 0
    return (width, height) if width > 0 and height > 0 and width * height <= max_pixels() else None
