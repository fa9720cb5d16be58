"""From what annotations say to boxes that can be trained on: upright, within the picture, each once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from deepres.data.boxes.annotations import AnnotatedPicture, Box, Fault, Kind, merged
from deepres.data.boxes.outlines import Outline, rasterised, turned_mask
from deepres.data.boxes.truth import Truth
from deepres.data.rgb import SIDEWAYS, orientation_of, seen_size
from deepres.runtime.masks import Masks, mask_areas

WORDS: dict[Kind, str] = {
    "flat": "a box without width or height",
    "outside": "a box that reaches out of the picture",
    "doubled": "a box that is there more than once",
}
SLACK = 0.5  # pixels by which a box may reach out of its picture before that is told: numbers are rounded


class Look(NamedTuple):
    """The head of a picture: its (width, height) upright and as it is stored, and its EXIF orientation."""

    upright: tuple[int, int]
    stored: tuple[int, int]
    orientation: int


class Packed(NamedTuple):
    """The objects of several pictures, one after another, and the end of those of each picture, int64 (N,)."""

    truth: Truth
    ends: Tensor


def look(image: Image) -> Look:
    """The head of an opened picture. A TIFF is upright when it is opened, whatever its orientation says."""
    upright, orientation = seen_size(image), orientation_of(image)
    return Look(upright, image.size, orientation if image.format != "TIFF" else 1)


def turned(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box on the stored picture of `size` (width, height), as it lies on the upright one."""
    left, top, right, bottom = box
    width, height = size
    # Mirror left and right, or top and bottom, of the stored picture; then exchange both axes.
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation in SIDEWAYS else (left, top, right, bottom)


def cleaned(
    annotated: Sequence[AnnotatedPicture], looks: Sequence[Look], labels: dict[str, int], masks: bool = False
) -> tuple[Packed, list[Fault]]:
    """The objects of pictures that have been looked at, and what was wrong with them.

    `labels` are the numbers of the class names. A box is taken as one on the upright picture, unless the annotation
    gives the size of the stored picture and this is another one: such boxes are turned with the picture. Boxes are cut
    at the border of the picture. Those without width or height then are left out, and doubled ones kept once. With
    `masks`, the outlines of those that are kept become masks; an object whose outline is none has no mask.
    """
    # One row for each object of all pictures.
    rows = [
        (owner, labels[own.name], own.difficult, own.crowd, np.nan if own.area is None else own.area, *box)
        for owner, (picture, head) in enumerate(zip(annotated, looks, strict=True))
        for own, box in zip(picture.objects, _placed(picture, head), strict=True)
    ]
    table = np.array(rows, np.float64).reshape(-1, 9)
    owners, boxes = table[:, 0].astype(np.int64), table[:, 5:].copy()
    # Cut the boxes, and leave out those of which nothing is left.
    sizes = np.array([head.upright for head in looks], np.float64).reshape(-1, 2)
    limits = np.concatenate([sizes, sizes], 1)[owners]
    cut = np.clip(boxes, 0, limits)
    flat = (cut[:, 2:] <= cut[:, :2]).any(1)
    outside = (np.abs(cut - boxes) > SLACK).any(1)
    # Keep the first of equal ones.
    table[:, 5:] = cut
    own = table[:, [0, 1, 3, 5, 6, 7, 8]]  # picture, class, crowd and box
    order = np.lexsort(own.T)
    doubled = np.zeros(len(own), bool)
    doubled[order[1:]] = (own[order[1:]] == own[order[:-1]]).all(1)
    wrong: tuple[tuple[Kind, Any], ...] = (("flat", flat), ("outside", outside & ~flat), ("doubled", doubled & ~flat))
    faults = [fault for kind, mask in wrong for fault in _faults(kind, annotated, owners[mask], boxes[mask])]
    kept = ~doubled & ~flat
    packed, faults = _packed(table[kept], len(annotated)), faults + _sizes(annotated, looks)
    if masks:
        outlines = [own.outline for picture in annotated for own in picture.objects]
        wanted = [(int(owners[place]), outlines[place]) for place in np.flatnonzero(kept)]
        found, wrong_masks = _masks(annotated, looks, wanted)
        given = ~torch.from_numpy(table[kept, 4]).isnan() | ~found.known
        areas = torch.where(given, packed.truth.areas, mask_areas(found).float())
        packed = packed._replace(truth=replace(packed.truth, masks=found, areas=areas))
        faults += wrong_masks
    return packed, faults


def _is_stored(picture: AnnotatedPicture, head: Look) -> bool:
    """Whether the annotation is one of the stored picture, which is not upright."""
    return not picture.relative and picture.size == head.stored != head.upright


def _masks(
    annotated: Sequence[AnnotatedPicture], looks: Sequence[Look], outlines: Sequence[tuple[int, Outline | None]]
) -> tuple[Masks, list[Fault]]:
    """The masks of outlines, each given with the place of its picture, and what is wrong with them."""
    texts, faults = list[bytes](), list[Fault]()
    for owner, outline in outlines:
        picture, head, text = annotated[owner], looks[owner], b""
        width, height = head.stored if (turn := _is_stored(picture, head)) else head.upright
        try:
            if outline is not None:
                text = rasterised(outline, (height, width))
        except ValueError as error:
            faults.append(Fault(picture.source, "mask", str(error)))
        texts.append(turned_mask(text, (height, width), head.orientation) if turn and text else text)
    sizes = [looks[owner].upright[::-1] for owner, _ in outlines]
    return Masks.of(texts, sizes), merged(faults)


def _placed(picture: AnnotatedPicture, head: Look) -> list[Box]:
    """The boxes of a picture, in pixels of the upright picture."""
    boxes = [own.box for own in picture.objects]
    if picture.relative:
        width, height = head.upright
        return [(left * width, top * height, right * width, bottom * height) for left, top, right, bottom in boxes]
    if _is_stored(picture, head):
        return [turned(box, head.stored, head.orientation) for box in boxes]
    return boxes


def _packed(table: NDArray[np.float64], count: int) -> Packed:
    values = torch.from_numpy(table)
    owner, label, difficult, crowd, area = values[:, :5].unbind(1)
    boxes = values[:, 5:]
    areas = torch.where(area.isnan(), (boxes[:, 2:] - boxes[:, :2]).prod(1), area)
    truth = Truth(boxes.float().contiguous(), label.long(), difficult.bool(), crowd.bool(), areas.float())
    return Packed(truth, owner.long().bincount(minlength=count).cumsum(0))


def _faults(
    kind: Kind, annotated: Sequence[AnnotatedPicture], owners: NDArray[np.int64], boxes: NDArray[np.float64]
) -> list[Fault]:
    """A fault for each picture that has such boxes, with the first of them."""
    places, starts, counts = np.unique(owners, return_index=True, return_counts=True)
    found = list[Fault]()
    for place, start, count in zip(places.tolist(), starts.tolist(), counts.tolist(), strict=True):
        shown = ", ".join(f"{side:g}" for side in boxes[start])
        found.append(Fault(annotated[place].source, kind, f"{WORDS[kind]}: ({shown})", count))
    return found


def _sizes(annotated: Sequence[AnnotatedPicture], looks: Sequence[Look]) -> list[Fault]:
    """The annotations whose size is that of neither the upright nor the stored picture."""
    return [
        Fault(
            picture.source, "size", f"it gives {_by(picture.size)}, the picture {picture.name} has {_by(head.upright)}"
        )
        for picture, head in zip(annotated, looks, strict=True)
        if picture.size is not None and picture.size not in (head.upright, head.stored)
    ]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
