"""One way through folders for all readers: links followed, loops ended, and nothing that tools leave behind."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from deepres.runtime.errors import InputError

# What Windows, macOS, network storage, viewers and notebooks put among a person's files, beside all names with a dot in
# front.
TOOL_MADE = frozenset(
    (
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        *("__macosx", "__pycache__", "lost+found", "$recycle.bin", "recycler", "system volume information"),
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "@tmp", "@synoresource", "@__thumb"),
        *("network trash folder", "temporary items", "thevolumesettingsfolder", "_gsdata_", "_vti_cnf"),
        *("_thumbs", "thumbnails", "zbthumbnail.info", "picasa.ini", "captureone"),
    )
)
NUMBERED = re.compile(r"found\.\d{3}")  # what Windows finds when it mends a disk
OWN = ".deepres"  # where statistics are kept beside the data
SHOWN, SHOWN_KINDS = 5, 12


class Entry(NamedTuple):
    """What a folder holds: a path, and whether it is a folder or a link to one."""

    path: str
    is_folder: bool


class Inside(NamedTuple):
    """What lies in a folder, each sorted by name."""

    folders: tuple[Path, ...]
    files: tuple[Path, ...]


@dataclass
class Walk:
    """A way through folders, which keeps what it passed over: hidden entries, and links to folders it had been to.

    Names are in the order of their composed form. Its methods raise `OSError` for a folder that cannot be read.
    """

    hidden: set[str] = field(default_factory=set[str])
    links: set[str] = field(default_factory=set[str])

    def inside(self, folder: Path) -> Inside:
        """The visible folders and files that lie in a folder itself."""
        entries = _sorted(self._visible(str(folder)))
        folders, files = (tuple(Path(path) for path, kind in entries if kind is wanted) for wanted in (True, False))
        return Inside(folders, files)

    def folders_inside(self, folder: Path) -> tuple[Path, ...]:
        """The same folders alone, for one that may hold a great many files."""
        return tuple(Path(path) for path, _ in _sorted(each for each in self._visible(str(folder)) if each.is_folder))

    def files_inside(self, folder: Path) -> Iterator[str]:
        """Paths of the visible files that lie in a folder itself, in no order, one after another."""
        return (path for path, is_folder in self._visible(str(folder)) if not is_folder)

    def files_below(self, folder: Path) -> Iterator[str]:
        """Paths of all visible files in a folder and those below it; each folder is read once.

        What is no folder is taken for a file: whoever opens it asks `files.require_regular`.
        """
        return (path for path, is_folder in self._below(folder) if not is_folder)

    def folders_below(self, folder: Path) -> Iterator[Path]:
        """The folder itself and all visible ones below it, each before what it holds."""
        return (Path(path) for path, is_folder in self._below(folder) if is_folder)

    def notes(self) -> list[str]:
        """What was passed over, each kind with its count and the first names, in words."""
        notes: list[str] = []
        if self.hidden:
            notes.append(
                f"not read, since hidden or made by a tool: {names_of(Path(path).name for path in self.hidden)}"
            )
        if self.links:
            notes.append(f"not followed, since they lead to folders that are read already: {names_of(self.links)}")
        return notes

    def _below(self, folder: Path) -> Iterator[Entry]:
        """With a stack in place of recursion, as folders may be nested deeply."""
        seen: set[Hashable] = set()
        waiting = [Entry(str(folder), True)]
        while waiting:
            entry = waiting.pop()
            if entry.is_folder:
                identity = self._identity(entry.path)
                if identity in seen:
                    self.links.add(entry.path)
                    continue
                seen.add(identity)
                waiting += reversed(_sorted(self._visible(entry.path)))
            yield entry

    def _visible(self, folder: str) -> Iterator[Entry]:
        """What lies in a folder, but for hidden entries and links to folders above it."""
        above: set[Hashable] | None = None
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    if entry.name != OWN:
                        self.hidden.add(entry.path)
                    continue
                is_folder = _is_folder(entry)
                if is_folder and entry.is_symlink():
                    above = above or {self._identity(str(place)) for place in _upwards(Path(folder))}
                    if self._identity(entry.path) in above:
                        self.links.add(entry.path)
                        continue
                yield Entry(entry.path, is_folder)

    def _identity(self, folder: str) -> Hashable:
        """What two paths of the same folder have in common."""
        found = Path(folder).stat()
        return found.st_dev, found.st_ino


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or of a kind that tools leave behind (`._1.jpg`, `@eaDir`, `Thumbs.db`)."""
    known = name.casefold()
    return name.startswith(".") or known in TOOL_MADE or NUMBERED.fullmatch(known) is not None


def names_of(names: Iterable[str]) -> str:
    """How many there are, with the first names in sorted order."""
    found = list(names)
    different = sorted(set(found))
    return f"{len(found):,} ({', '.join(different[:SHOWN])}{', ...' if len(different) > SHOWN else ''})"


def unread_note(unread: Counter[str]) -> list[str]:
    """How many files were not read for their names, if any, in words: the most usual ends of names, and the rest."""
    common = unread.most_common()
    kinds = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in common[:SHOWN_KINDS]]
    if rest := common[SHOWN_KINDS:]:
        kinds.append(f"and {sum(count for _, count in rest):,} more of {len(rest):,} other kinds")
    return [f"not read, by the names of the files: {', '.join(kinds)}"] if kinds else []


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), which is one for what macOS and other systems write in two ways."""
    return unicodedata.normalize("NFC", name)


def class_name(name: str, where: Path) -> str:
    """The name of a class, composed. Raises `InputError` for one that is not UTF-8, which no file can keep."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} has a class name that is not UTF-8, {name!a}; rename it") from None
    return composed(name)


def on_disk(path: Path) -> Path:
    """`path` as its names are written on the disk, where they differ from those given by their Unicode form alone."""
    if os.path.lexists(path) or path.parent == path:
        return path
    parent, wanted = on_disk(path.parent), composed(path.name)
    try:
        return next((place for place in sorted(parent.iterdir()) if composed(place.name) == wanted), path)
    except (OSError, ValueError):  # there is no such folder; the name has a null in it
        return path


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (composed(entry.path.rpartition(os.sep)[2]), entry.path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _upwards(folder: Path) -> set[Path]:
    """The folder and all above it, by its path and by where its links lead to."""
    return {up for place in (folder.absolute(), folder.resolve()) for up in (place, *place.parents)}
