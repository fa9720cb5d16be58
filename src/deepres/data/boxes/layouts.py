"""Tells which layout a folder with boxes is in."""

from itertools import islice
from pathlib import Path

from deepres.data.boxes import voc
from deepres.data.boxes.scenes import Source
from deepres.data.boxes.tree import Tree
from deepres.data.published import PUBLISHED
from deepres.data.sources import placed
from deepres.data.walk import Walk
from deepres.runtime.errors import InputError
from deepres.runtime.files import require_regular

FOLDERS, FILES = 200, 400  # looked at, and in each: enough to tell a layout, and quick in a million pictures
TRIED = 5  # files of a kind that are looked into
HEAD = 4096  # bytes


def is_boxes(data: str) -> bool:
    """Whether `data` is a folder in one of the layouts with boxes. It is quick, and reads no picture."""
    place = Path(placed(data))
    return data not in PUBLISHED and place.is_dir() and layout_of(place) is not None


def layout_of(root: Path) -> str | None:
    """The layout of a folder with boxes; None for any other folder. A bounded number of files is looked at."""
    try:
        seen = _glance(root)
        if any(_begins_with(file, b"<annotation") for file in seen.get(".xml", ())):
            return voc.LAYOUT
    except OSError:
        return None
    return None


def find_source(root: Path) -> Source:
    """The data set in a folder. Raises `InputError` for a folder in no layout with boxes, and `OSError`."""
    layout = layout_of(root)
    readers = {voc.LAYOUT: voc.voc_source}
    if layout is None:
        raise InputError(
            f"{root} has no boxes in a layout that is known; give a folder of Pascal VOC (Annotations/ with XML, "
            "JPEGImages/), COCO JSON (annotations/instances_NAME.json) or YOLO (images/, labels/ and data.yaml)"
        )
    return readers[layout](Tree.of(root))


def _glance(root: Path) -> dict[str, list[Path]]:
    """Some files by suffix, from the first folders below `root`, level by level."""
    found: dict[str, list[Path]] = {}
    walk, level, left = Walk(), [root], FOLDERS
    while level and left > 0:
        below = list[Path]()
        for folder in level[:left]:
            for name in islice(walk.files_inside(folder), FILES):
                own = found.setdefault(Path(name).suffix.lower(), [])
                if len(own) < TRIED:
                    own.append(Path(name))
            below += walk.folders_inside(folder)
        left -= len(level)
        level = below
    return found


def _begins_with(file: Path, tag: bytes) -> bool:
    """Whether `tag` is in the first bytes of a regular file."""
    try:
        require_regular(file)
        with file.open("rb") as stream:
            return tag in stream.read(HEAD)
    except OSError:
        return False
