"""The files within tar shards as a walk through folders, so that classes are found as in folders on disk."""

from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

from deepres.data.walk import FolderEntry, Walk


class Members(Walk):
    """A walk through files known by their names only, with `/` between folders, below a `root` that is not on disk."""

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        super().__init__()
        self.root = root
        self._folders: dict[str, dict[str, bool]] = {}
        for name in names:
            folder, is_folder = f"{root}/{name}", False
            while folder != str(root):
                folder, _, last = folder.rpartition("/")
                inside = self._folders.setdefault(folder, {})
                if last in inside:
                    break
                inside[last], is_folder = is_folder, True

    def below(self, folder: Path) -> Iterator[str]:
        """The names of all files in and below a folder."""
        return (path.removeprefix(f"{self.root}/") for path in self.files_below(folder))

    def _visible(self, folder: str) -> Iterator[FolderEntry]:
        return (FolderEntry(f"{folder}/{name}", kind) for name, kind in self._folders.get(folder, {}).items())

    def _identity(self, folder: str) -> Hashable:
        return folder
