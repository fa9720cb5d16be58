"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from deepres.errors import InputError


def refuse_input(option: str, output: Path, inputs: Iterable[Path]) -> None:
    """Raise `InputError` where `output` is one of `inputs`, which would be lost."""
    if any(output.exists() and place.exists() and output.samefile(place) for place in inputs):
        raise InputError(f"{option} {output} is what is read, and would be lost; give another name")


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
