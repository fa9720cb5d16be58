"""How all readers walk through folders: links are followed once, and hidden and tool-made files are left out."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from deepres.runtime.errors import InputError

# Made by Windows, macOS, network storage, viewers and notebooks. Names with a leading dot are hidden anyway.
TOOL_MADE = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    *("__macosx", "__pycache__", "lost+found", "$recycle.bin", "recycler", "system volume information"),
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "@tmp", "@synoresource", "@__thumb"),
    *("network trash folder", "temporary items", "thevolumesettingsfolder", "_gsdata_", "_vti_cnf"),
    *("_thumbs", "thumbnails", "zbthumbnail.info", "picasa.ini", "captureone"),
}
NUMBERED = re.compile(r"found\.\d{3}")  # made by Windows when it repairs a disk
OWN = ".deepres"  # the folder of our statistics beside the data
SHOWN, SHOWN_KINDS = 5, 12


class FolderEntry(NamedTuple):
    """An entry of a folder: its path, and whether it is a folder or a link to one."""

    path: str
    is_folder: bool


class Inside(NamedTuple):
    """The folders and the files in a folder, sorted by name."""

    folders: tuple[Path, ...]
    files: tuple[Path, ...]


@dataclass
class Walk:
    """A walk through folders. It remembers what it left out: `hidden` entries, and `links` to folders seen before.

    Readers count in `unread`, by suffix, the files that they leave out because of their names.
    Names are sorted by their composed Unicode form. The methods raise `OSError` for a folder that cannot be read.
    """

    hidden: set[str] = field(default_factory=set[str])
    links: set[str] = field(default_factory=set[str])
    unread: Counter[str] = field(default_factory=Counter[str])

    def inside(self, folder: Path) -> Inside:
        """The visible folders and files directly in a folder."""
        entries = _sorted(self._visible(str(folder)))
        folders, files = (tuple(Path(path) for path, kind in entries if kind is wanted) for wanted in (True, False))
        return Inside(folders, files)

    def folders_inside(self, folder: Path) -> tuple[Path, ...]:
        """The visible folders directly in a folder, which may hold a great many files."""
        return tuple(Path(path) for path, _ in _sorted(each for each in self._visible(str(folder)) if each.is_folder))

    def files_inside(self, folder: Path) -> Iterator[str]:
        """Paths of the visible files directly in a folder, one after another, unsorted."""
        return (path for path, is_folder in self._visible(str(folder)) if not is_folder)

    def files_below(self, folder: Path) -> Iterator[str]:
        """Paths of all visible files in and below a folder; each folder is read once.

        Pipes and devices count as files. `files.require_regular` refuses them when they are opened.
        """
        return (path for path, is_folder in self._below(folder) if not is_folder)

    def folders_below(self, folder: Path) -> Iterator[Path]:
        """The folder itself and all visible folders below it, each before its contents."""
        return (Path(path) for path, is_folder in self._below(folder) if is_folder)

    def notes(self) -> list[str]:
        """Sentences about what was left out: each kind with its count and the first names."""
        notes = _unread_note(self.unread)
        if self.hidden:
            hidden = names_of(Path(path).name for path in self.hidden)
            notes.append(f"not read, since hidden or made by a tool: {hidden}")
        if self.links:
            notes.append(f"not followed, since they lead to folders that are read already: {names_of(self.links)}")
        return notes

    def _below(self, folder: Path) -> Iterator[FolderEntry]:
        """All entries below a folder, found with a stack, since folders may be nested deeper than recursion allows."""
        seen: set[Hashable] = set()
        waiting = [FolderEntry(str(folder), True)]
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

    def _visible(self, folder: str) -> Iterator[FolderEntry]:
        """The entries of a folder without hidden ones and without links to folders above it."""
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
                yield FolderEntry(entry.path, is_folder)

    def _identity(self, folder: str) -> Hashable:
        """A key that is equal for all paths of the same folder."""
        found = Path(folder).stat()
        return found.st_dev, found.st_ino


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or made by a tool (`._1.jpg`, `@eaDir`, `Thumbs.db`), by its name."""
    known = name.casefold()
    return name.startswith(".") or known in TOOL_MADE or NUMBERED.fullmatch(known) is not None


def names_of(names: Iterable[str]) -> str:
    """The number of names, with the first of them in sorted order."""
    found = list(names)
    different = sorted(set(found))
    return f"{len(found):,} ({', '.join(different[:SHOWN])}{', ...' if len(different) > SHOWN else ''})"


def _unread_note(unread: Counter[str]) -> list[str]:
    """A note about files left out because of their names: the counts of the most common suffixes and of the rest."""
    common = unread.most_common()
    kinds = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in common[:SHOWN_KINDS]]
    if rest := common[SHOWN_KINDS:]:
        kinds.append(f"and {sum(count for _, count in rest):,} more of {len(rest):,} other kinds")
    return [f"not read, by the names of the files: {', '.join(kinds)}"] if kinds else []


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC), the same for names that macOS and other systems encode differently."""
    return unicodedata.normalize("NFC", name)


def class_name(name: str, where: Path) -> str:
    """The name of a class, composed. Raises `InputError` for one that is not UTF-8, which our files cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} has a class name that is not UTF-8, {name!a}; rename it") from None
    return composed(name)


def on_disk(path: Path) -> Path:
    """`path` with its names as on the disk, where these differ only in their Unicode form from those given."""
    if os.path.lexists(path) or path.parent == path:
        return path
    parent, wanted = on_disk(path.parent), composed(path.name)
    try:
        return next((place for place in sorted(parent.iterdir()) if composed(place.name) == wanted), path)
    except (OSError, ValueError):  # no such folder, or a null character in the name
        return path


def _sorted(entries: Iterable[FolderEntry]) -> list[FolderEntry]:
    return sorted(entries, key=lambda entry: (composed(entry.path.rpartition(os.sep)[2]), entry.path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _upwards(folder: Path) -> set[Path]:
    """The folder and all folders above it, by its path and by the path with links resolved."""
    return {up for place in (folder.absolute(), folder.resolve()) for up in (place, *place.parents)}
