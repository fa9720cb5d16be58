"""Files: those that are written whole or not at all, and those of strangers, which may be no files."""

import codecs
import contextlib
import errno
import glob
import os
import re
import shutil
import stat
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from deepres.runtime.errors import InputError

DAY = 86_400.0  # seconds
PARTIAL = re.compile(r"\..+\.(\d+)\.partial")
MOST_TEXT = 2**28  # bytes of a text that a person wrote
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_unfinished = set[tuple[int, Path]]()  # of which process, as a fork knows those of its parent


def refuse_input(option: str, output: Path, inputs: Iterable[Path]) -> None:
    """Raise `InputError` where `output` is one of `inputs`, which would be lost."""
    if any(output.exists() and place.exists() and output.samefile(place) for place in inputs):
        raise InputError(f"{option} {output} is what is read, and would be lost; give another name")


def require_regular(file: Path, most_bytes: int | None = None) -> None:
    """Raise `OSError` for what is no regular file, or has more bytes.

    A named pipe would be waited for without end, and a device has no end.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a file", str(file))
    if most_bytes is not None and found.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"{found.st_size:,} bytes, more than the limit of {most_bytes:,}", str(file))


def read_text(file: Path) -> str:
    """The text of a file that a person wrote: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises `OSError`, and `UnicodeDecodeError` for another encoding.
    """
    return decoded_text(read_bytes(file, MOST_TEXT))


def read_bytes(file: Path, most_bytes: int | None = None) -> bytes:
    """The content of a regular file. Raises `OSError` as `require_regular`."""
    require_regular(file, most_bytes)
    return file.read_bytes()


def decoded_text(content: bytes) -> str:
    """The text of these bytes, by the rules of `read_text`; some programs of Windows write UTF-16."""
    return content.decode("utf-16" if content.startswith(WIDE) else "utf-8-sig")


def listed_names(content: bytes) -> list[str]:
    """The names of files in a list, a line each: in the system's encoding, or in Unicode with a byte order mark."""
    wide = content.startswith(WIDE)
    return lines_of(decoded_text(content) if wide else os.fsdecode(content.removeprefix(codecs.BOM_UTF8)))


def lines_of(text: str) -> list[str]:
    """The lines of a text, whichever system ended them, but for blank ones."""
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


@contextmanager
def replacing(file: Path) -> Generator[Path]:
    """Yield the place for the new contents of `file`: flushed to the disk and renamed where the block ends well.

    Where it raises, what `file` held before stays, and nothing half-written does. Each process has a place of its own.
    Raises `OSError` where `file` is there and no regular one: a device would be lost.
    """
    if file.exists():
        require_regular(file)
    with unfinished(file) as partial:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(file)


@contextmanager
def unfinished(file: Path) -> Generator[Path]:
    """Yield a place beside `file`, for a file or a folder of this process; what is left there at the end is removed.

    What a process left that was killed is removed by the next one that writes `file`, after a day where it may be one
    of another machine.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    sweep(file.parent, DAY, glob.escape(file.name))
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    own = os.getpid(), partial
    _remove(partial)  # of a process of the same number
    _unfinished.add(own)
    try:
        yield partial
    finally:
        _remove(partial)
        _unfinished.discard(own)


def remove_unfinished() -> None:
    """Remove what this process has half-written: it ends at once."""
    for process, partial in list(_unfinished):
        if process == os.getpid():
            _remove(partial)


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):  # which would hide what went wrong before
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


def sweep(folder: Path, age: float = 0.0, names: str = "*") -> None:
    """Remove what processes that are gone left half-written in `folder`: where it lies for `age` seconds or longer.

    `names` is a pattern of the files that they were to be. A process of the same number that began later is another
    one. `age` is for folders that several machines share, as the processes of the others are not seen here.
    """
    for partial in folder.glob(f".{names}.*.partial"):
        named = PARTIAL.fullmatch(partial.name)
        with contextlib.suppress(OSError):
            written = partial.stat().st_mtime
            if named and time.time() - written >= age and not _writes(int(named[1]), written):
                _remove(partial)


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
