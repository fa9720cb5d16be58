"""Files that belong together, written beside their places and put there together."""

import glob
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from deepres.runtime.files import DAY, sweep, unfinished


@contextmanager
def staging(out: Path) -> Generator[Path]:
    """Yield the place for the new contents of `out`, in a folder of its own, whose files then go to where `out` is.

    They go in sorted order, flushed to the disk. Where the block raises, or is told to end, what was there before
    stays and nothing half-written does; what a process left that was killed is removed by the next one.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent, names=glob.escape(out.name))
    sweep(out.parent, DAY, f"*{out.suffix}")  # of other exports
    with unfinished(out) as folder:
        folder.mkdir()
        yield folder / out.name
        _take_places(folder, out.parent)


def _take_places(folder: Path, target: Path) -> None:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    before = folder / "before"
    before.mkdir()
    moved: list[Path] = []
    try:
        for file in files:
            place = target / file.name
            if place.is_file() and file != files[-1]:  # after the last one nothing can fail
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
    """The same contents under another name, which takes no room where the disk has links."""
    try:
        kept.hardlink_to(file)
    except OSError:
        shutil.copy2(file, kept)
