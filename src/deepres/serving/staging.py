"""Files that belong together, written to a folder beside their places and moved there together."""

import glob
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from deepres.runtime.files import DAY, sweep, unfinished


@contextmanager
def staging(out: Path) -> Generator[Path]:
    """Yield a path in a new folder for the contents of `out`; at the end all files of the folder move beside `out`.

    They move in sorted order, flushed to the disk. Where the block raises, the files from before are kept, and nothing
    half-written is; what a killed process has left is removed by the next one.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent, names=glob.escape(out.name))
    sweep(out.parent, DAY, f"*{out.suffix}")  # left by other exports
    with unfinished(out) as folder:
        folder.mkdir()
        yield folder / out.name
        _take_places(folder, out.parent)


def _take_places(folder: Path, target: Path) -> None:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    # Move the files; where one cannot be moved, those before it are put back.
    before = folder / "before"
    before.mkdir()
    moved: list[Path] = []
    try:
        for file in files:
            place = target / file.name
            if place.is_file() and file != files[-1]:  # after the last file nothing can fail
                _keep(place, before / file.name)
            file.replace(place)
            moved.append(place)
    except BaseException:
        for place in moved:
            if (kept := before / place.name).exists():
                kept.replace(place)
            else:
                place.unlink()
        raise


def _keep(file: Path, kept: Path) -> None:
    """Keep the contents of `file` under the name `kept`, as a link where the disk has links, else as a copy."""
    try:
        kept.hardlink_to(file)
    except OSError:
        shutil.copy2(file, kept)
