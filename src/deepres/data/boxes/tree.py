"""The files of a data set with boxes, and which annotation file belongs to which picture."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from deepres.data.part_names import is_picture, part_name
from deepres.data.walk import Walk, composed
from deepres.runtime.errors import InputError
from deepres.runtime.files import listed_names, read_bytes

# Folders that say what kind of file they hold, and nothing of the part or the class.
PICTURE_FOLDERS = {"jpegimages", "images", "image", "imgs", "img", "pictures", "photos"}
TRUTH_FOLDERS = {"annotations", "annotation", "annots", "xmls", "xml", "labels", "label"}
MOST_LIST = 2**26  # bytes of a list of names
OBJECT_MASKS = "segmentationobject"
MASK_FOLDERS = {"segmentationclass", OBJECT_MASKS}  # of VOC: pictures of masks
T = TypeVar("T")


@dataclass(frozen=True)
class Tree:
    """All visible files below `root`, as paths within it with `/` between folders, in sorted order."""

    root: Path
    names: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, root: Path) -> "Tree":
        """Walk through `root`. Raises `OSError`."""
        walk, within = Walk(), root.as_posix().rstrip("/") + "/"
        names = tuple(path.removeprefix(within) for path in walk.files_below(root))
        return cls(root, names, tuple(walk.notes()))

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of all files."""
        return tuple(self.root / name for name in self.names)

    @cached_property
    def pictures(self) -> dict[str, list[str]]:
        """The names of the pictures by key. Pictures in folders of annotations and of masks do not count."""
        apart = TRUTH_FOLDERS | MASK_FOLDERS
        return _by_key(name for name in self.names if is_picture(name) and not apart & _folders(name))

    @cached_property
    def count(self) -> int:
        """The number of pictures."""
        return sum(map(len, self.pictures.values()))

    def ending(self, suffix: str) -> dict[str, list[str]]:
        """The names of the files with this suffix, by key."""
        return _by_key(name for name in self.names if name.lower().endswith(suffix))


def key_of(name: str) -> str:
    """What a picture and its annotation have in common: the path without suffix and without folders of a kind.

    `train/images/1.jpg`, `images/train/1.jpg` and `train/labels/1.txt` have the key `train/1`.
    """
    *folders, last = name.split("/")
    kept = [folder for folder in folders if folder.casefold() not in PICTURE_FOLDERS | TRUTH_FOLDERS]
    return composed("/".join([*kept, last.rpartition(".")[0] or last]))


def mask_key(name: str) -> str | None:
    """The key of the picture whose objects a picture of masks shows (VOC's `SegmentationObject/`); None of others."""
    *folders, last = name.split("/")
    kept = [folder for folder in folders if folder.casefold() != OBJECT_MASKS]
    return key_of("/".join([*kept, last])) if len(kept) < len(folders) and is_picture(name) else None


def lines_in(file: Path) -> list[str]:
    """The lines of a list of names. Raises `OSError`, and `InputError` for what is not text."""
    try:
        return listed_names(read_bytes(file, MOST_LIST))
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8; write it anew") from None


def by_last(keys: Iterable[str]) -> dict[str, str]:
    """The keys (paths with `/`) by their last part, where only one has it."""
    found: dict[str, str | None] = {}
    for key in keys:
        last = key.rpartition("/")[2]
        found[last] = None if last in found else key
    return {last: key for last, key in found.items() if key is not None}


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key_of(name), []).append(name)
    return found


def _folders(name: str) -> set[str]:
    return {folder.casefold() for folder in name.split("/")[:-1]}


def by_folder(keys: Iterable[str], read: Callable[[list[str]], T]) -> dict[str, Callable[[], T]]:
    """A set for each folder in the keys that is named after a part, "train/1" being in "train"; else one for all.

    `read(keys)` reads a set.
    """
    sets: dict[str, list[str]] = {}
    for key in dict.fromkeys(keys):
        names = map(part_name, folders := key.split("/")[:-1])
        own = next((folder for folder, name in zip(folders, names, strict=True) if name and name.is_plain), "")
        sets.setdefault(own, []).append(key)
    return {name: partial(read, own) for name, own in sets.items()}
