"""Files that are written whole or not at all."""

import contextlib
import os
import re
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from deepres.errors import InputError


def refuse_input(option: str, output: Path, inputs: Iterable[Path]) -> None:
    """Raise `InputError` where `output` is one of `inputs`, which would be lost."""
    if any(output.exists() and place.exists() and output.samefile(place) for place in inputs):
        raise InputError(f"{option} {output} is what is read, and would be lost; give another name")


DAY = 86_400.0  # seconds
PARTIAL = re.compile(r"\..+\.(\d+)\.partial")


@contextmanager
def replacing(file: Path) -> Generator[Path]:
    """Yield the place for the new contents of `file`: flushed to the disk and renamed where the block ends well.

    Where it raises, what `file` held before stays, and nothing half-written does. Each process has a place of its own.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        with contextlib.suppress(OSError):  # which would hide what went wrong before
            partial.unlink(missing_ok=True)


def sweep(folder: Path, age: float = 0.0) -> None:
    """Remove what processes that are gone left half-written in `folder`: where it lies for `age` seconds or longer.

    A process of the same number that began later is another one. `age` is for folders that several machines share, as
    the processes of the others are not seen here.
    """
    for partial in folder.glob(".*.partial"):
        named = PARTIAL.fullmatch(partial.name)
        with contextlib.suppress(OSError):
            written = partial.stat().st_mtime
            if named and time.time() - written >= age and not _writes(int(named[1]), written):
                partial.unlink()


def _writes(process: int, written: float) -> bool:
    """Whether `process` is there, and was when the file was `written`."""
    import psutil

    try:
        return psutil.Process(process).create_time() <= written + 1  # a clock's tick
    except (psutil.Error, ValueError, OverflowError):
        return False


def missing(file: Path) -> list[Path]:
    """`file` and its folders, from the inmost on, as far as they are not there."""
    return [place for place in (file, *file.parents) if not place.exists()]


def remove_empty(places: Iterable[Path]) -> None:
    """Remove a file and folders, from the inmost on, up to the first folder that holds something."""
    with contextlib.suppress(OSError):
        for place in places:
            place.rmdir() if place.is_dir() else place.unlink(missing_ok=True)
