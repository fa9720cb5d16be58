"""From what an annotation says of the outline of an object to its mask: polygons, run lengths, pictures of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepres.data.rgb import SIDEWAYS, max_pixels
from deepres.runtime.masks import Masks, decoded, encoded, run_lengths

Size = tuple[int, int]  # height and width
FAR = 1.0  # heights and widths of the picture by which a corner may lie outside of it
LONGEST = 2**22  # pixels of the lines of one object: rasterising takes time and memory by them
MOST_NUMBERS = 1_000  # objects of one picture of numbers


@dataclass(frozen=True, eq=False)
class Polygons:
    """The polygons around an object: x and y of each corner in turn, float64, in pixels of its picture."""

    rings: list[NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Runs:
    """Run lengths of COCO over a picture of `size` (height, width), as numbers or as compressed text."""

    counts: Sequence[int] | bytes
    size: Size


Outline = Polygons | Runs


def rasterised(outline: Outline, size: Size) -> bytes:
    """The compressed run lengths of an outline in a picture of `size`, exactly as COCO makes them.

    A polygon of fewer than three corners covers nothing. Raises `ValueError` with the reason where there is no mask.
    """
    from faster_coco_eval.core import mask

    if isinstance(outline, Runs):
        counts = _checked(outline, size)
        found: Any = mask.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)
        return found["counts"]
    parts: Any = mask.frPyObjects([ring.tolist() for ring in _checked_rings(outline, size)], *size)
    return mask.merge(parts)["counts"]


def numbered_masks(pixels: NDArray[Any], nothing: Sequence[int] = (0, 255)) -> tuple[list[int], Masks]:
    """The numbers in a picture of object numbers (height, width), in rising order, and the mask of each.

    0 is the background and 255 the border between objects (VOC). Raises `ValueError` for a picture of other values.
    """
    if pixels.ndim != 2 or pixels.dtype.kind not in "biu":
        raise ValueError("it has colours, not a number for each object")
    numbers = [int(own) for own in np.unique(pixels) if own not in nothing]
    if len(numbers) > MOST_NUMBERS:
        raise ValueError(f"it has {len(numbers):,} numbers, more than {MOST_NUMBERS:,} objects")
    texts = [encoded(torch.from_numpy(pixels == own)[None]).texts[0] for own in numbers]
    return numbers, Masks.of(texts, [pixels.shape] * len(numbers))


def turned_mask(text: bytes, size: Size, orientation: int) -> bytes:
    """The run lengths of a mask on the stored picture of `size`, as it lies on the upright one."""
    pixels = decoded(Masks.of([text], [size]))
    # As `cleaning.turned` does it with boxes.
    if orientation in (2, 3, 7, 8):
        pixels = pixels.flip(2)
    if orientation in (3, 4, 6, 7):
        pixels = pixels.flip(1)
    return encoded(pixels.transpose(1, 2) if orientation in SIDEWAYS else pixels).texts[0]


def _checked(outline: Runs, size: Size) -> NDArray[np.int64]:
    """The run lengths as numbers. Raises `ValueError` where they are not those of a picture of this size."""
    height, width = size
    if tuple(outline.size) != size:
        raise ValueError(f"its mask has {outline.size[1]}x{outline.size[0]} pixels, the picture {width}x{height}")
    if isinstance(outline.counts, bytes):
        counts = run_lengths(outline.counts)
    else:
        if len(outline.counts) > height * width + 1:
            raise ValueError(f"its mask has {len(outline.counts):,} run lengths, more than pixels")
        counts = np.array([min(max(own, -1), max_pixels() + 1) for own in outline.counts], np.int64)
    if len(counts) and counts.min() < 0:
        raise ValueError("its mask has a negative run length")
    if (total := int(counts.sum())) != height * width:
        made = f"{total:,}" if total <= max_pixels() else f"more than {max_pixels():,}"
        raise ValueError(f"the run lengths of its mask make {made} pixels, the picture has {height * width:,}")
    return counts


def _checked_rings(outline: Polygons, size: Size) -> list[NDArray[np.float64]]:
    """The polygons with three corners or more. Raises `ValueError` for no such one, and for senseless corners."""
    height, width = size
    rings = [ring for ring in outline.rings if len(ring) >= 6]
    if not rings:
        raise ValueError("its polygons have fewer than three corners")
    length = 0.0
    for ring in rings:
        if len(ring) % 2:
            raise ValueError("a polygon has an x without a y")
        corners = ring.reshape(-1, 2)
        limits = np.array([width, height], np.float64)
        if not (np.isfinite(corners).all() and (np.abs(corners - limits / 2) <= limits * (0.5 + FAR)).all()):
            raise ValueError("a polygon has corners far outside of the picture")
        length += np.abs(np.diff(corners, axis=0, append=corners[:1])).max(1).sum()
    if length > LONGEST:
        raise ValueError(f"the lines of its polygons are {length:,.0f} pixels long")
    return rings
