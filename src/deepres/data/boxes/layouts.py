"""Tells which layout a folder with boxes is in."""

import re
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from deepres.data.boxes import coco, ilsvrc, labelme, voc, yolo
from deepres.data.boxes.annotations import Source
from deepres.data.boxes.tree import TRUTH_FOLDERS, Tree
from deepres.data.part_names import IMAGE_SUFFIXES
from deepres.data.published import PUBLISHED
from deepres.data.sources import placed
from deepres.data.walk import Walk
from deepres.runtime.errors import InputError
from deepres.runtime.files import require_regular

FOLDERS, FILES = 200, 400  # looked at, and in each: enough to tell a layout, and quick in a million pictures
TRIED = 8  # files of a kind that are looked into, of each folder
HEAD = 4096  # bytes
VOC_ROOT = re.compile(rb"<annotation[\s>]")  # and not the <annotations> of others
READERS = {
    ilsvrc.LAYOUT: ilsvrc.ilsvrc_source,
    voc.LAYOUT: voc.voc_source,
    coco.LAYOUT: coco.coco_source,
    labelme.LAYOUT: labelme.labelme_source,
    yolo.LAYOUT: yolo.yolo_source,
}
# The readers of layouts that have masks, where these are asked for.
MASKED = {voc.LAYOUT: voc.voc_source, coco.LAYOUT: coco.coco_source, labelme.LAYOUT: labelme.labelme_source}


def is_boxes(data: str) -> bool:
    """Whether `data` is a folder in one of the layouts with boxes. It is quick, and reads no picture."""
    place = Path(placed(data))
    return bool(data) and data not in PUBLISHED and place.is_dir() and layout_of(place) is not None


@contextmanager
def told_of_boxes(data: str) -> Generator[None]:
    """Say of data that cannot be read as classes, and have boxes, what they are for."""
    try:
        yield
    except InputError as error:
        if not is_boxes(data):
            raise
        raise InputError(f"{error}; it has boxes, for deepres train detector or localizer") from None


def layout_of(root: Path) -> str | None:
    """The layout of a folder with boxes; None for any other folder. A bounded number of files is looked at."""
    try:
        return next(_layouts(root), None)
    except OSError:
        return None


def _layouts(root: Path) -> Iterator[str]:
    """All layouts of which there are signs; the first is read."""
    seen = _glance(root)
    detection = [ilsvrc.is_detection(file.relative_to(root).as_posix()) for file in seen.get(".xml", ())]
    annotations = [own for own, file in zip(detection, seen.get(".xml", ()), strict=True) if _is_annotation(file)]
    if annotations:
        yield ilsvrc.LAYOUT if any(annotations) else voc.LAYOUT
    if any(map(coco.is_coco, seen.get(".json", ()))):
        yield coco.LAYOUT
    if any(map(labelme.is_labelme, seen.get(".json", ()))):
        yield labelme.LAYOUT
    if _is_yolo(seen):
        yield yolo.LAYOUT


def find_source(root: Path, masks: bool = False) -> Source:
    """The data set in a folder, with the outlines of its objects where `masks` are asked for.

    Raises `InputError` for a folder in no layout with boxes, and `OSError`.
    """
    layouts = list(_layouts(root))
    if not layouts:
        raise InputError(
            f"{root} has no boxes in a layout that is known; give a folder of Pascal VOC (Annotations/ with XML, "
            "JPEGImages/), ILSVRC DET (Annotations/DET/, Data/DET/), COCO JSON (annotations/instances_NAME.json), "
            "LabelMe (a JSON file beside each picture) or YOLO (images/, labels/ and data.yaml)"
        )
    layout, tree = layouts[0], Tree.of(root)
    source = MASKED[layout](tree, masks=True) if masks and layout in MASKED else READERS[layout](tree)
    if others := layouts[1:]:
        source = replace(source, notes=(*source.notes, f"read as {layouts[0]}; its {others[0]} files are not read"))
    return source


def _glance(root: Path) -> dict[str, list[Path]]:
    """Some files by suffix, from the first folders below `root`, level by level."""
    found: dict[str, list[Path]] = {}
    walk, level, left = Walk(), [root], FOLDERS
    while level and left > 0:
        below = list[Path]()
        for folder in level[:left]:
            tried = Counter[str]()
            for name in islice(walk.files_inside(folder), FILES):
                suffix = Path(name).suffix.lower()
                tried[suffix] += 1
                if tried[suffix] <= TRIED or yolo.has_names(name):
                    found.setdefault(suffix, []).append(Path(name))
            below += walk.folders_inside(folder)
        left -= len(level)
        level = below
    return found


def _is_yolo(seen: dict[str, list[Path]]) -> bool:
    """Whether there are labels of YOLO, in a folder of labels or beside a picture of the same name."""
    labels = [file for file in seen.get(".txt", ()) if not yolo.has_names(file.name) and _has_picture(file)]
    return any(map(yolo.is_labels, labels))


def _has_picture(file: Path) -> bool:
    """Whether a text file lies in a folder of labels, or beside a picture of its name."""
    if TRUTH_FOLDERS & {folder.casefold() for folder in file.parts[-3:-1]}:
        return True
    return any(file.with_suffix(suffix).exists() for suffix in IMAGE_SUFFIXES)


def _is_annotation(file: Path) -> bool:
    """Whether a file begins as VOC's XML does."""
    try:
        require_regular(file)
        with file.open("rb") as stream:
            return VOC_ROOT.search(stream.read(HEAD)) is not None
    except OSError:
        return False
