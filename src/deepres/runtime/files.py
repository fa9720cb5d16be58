"""Writes files completely or not at all, and reads only regular files."""

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
MOST_TEXT = 2**28  # bytes of a text file written by hand
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_unfinished = set[tuple[int, Path]]()  # process and path; a forked child inherits the entries of its parent


def refuse_input(option: str, output: Path, inputs: Iterable[Path]) -> None:
    """Raise `InputError` if `output` is one of `inputs`, which would be overwritten."""
    if any(output.exists() and place.exists() and output.samefile(place) for place in inputs):
        raise InputError(f"{option} {output} is what is read, and would be lost; give another name")


def require_regular(file: Path, most_bytes: int | None = None) -> None:
    """Raise `OSError` if `file` is not a regular file, or has more than `most_bytes` bytes.

    Reading a named pipe could wait for ever, and a device may have no end.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"{kind}, not a file", str(file))
    if most_bytes is not None and found.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"{found.st_size:,} bytes, more than the limit of {most_bytes:,}", str(file))


def read_text(file: Path) -> str:
    """The text of a file written by hand: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises `OSError` as `require_regular` does, and `UnicodeDecodeError` for another encoding.
    """
    return decoded_text(read_bytes(file, MOST_TEXT))


def read_bytes(file: Path, most_bytes: int | None = None) -> bytes:
    """The content of a regular file. Raises `OSError` as `require_regular` does."""
    require_regular(file, most_bytes)
    return file.read_bytes()


def decoded_text(content: bytes) -> str:
    """The text of these bytes, by the rules of `read_text`. Some Windows programs write UTF-16."""
    return content.decode("utf-16" if content.startswith(WIDE) else "utf-8-sig")


def listed_names(content: bytes) -> list[str]:
    """File names from a list with one on each line, in the system's encoding or in Unicode with a byte order mark."""
    wide = content.startswith(WIDE)
    return lines_of(decoded_text(content) if wide else os.fsdecode(content.removeprefix(codecs.BOM_UTF8)))


def lines_of(text: str) -> list[str]:
    """The lines of a text that are not blank, with line ends of any system."""
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


@contextmanager
def replacing(file: Path) -> Generator[Path]:
    """Yield a temporary path for the new content of `file`; it is flushed to disk and renamed at the end of the block.

    If the block raises, `file` keeps its old content and the temporary file is removed. Each process has its own
    temporary path. Raises `OSError` if `file` exists and is not a regular file, since a device would be replaced.
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
    """Yield a temporary path beside `file`, for a file or a folder; what is left there at the end is removed.

    What a killed process has left is removed by the next process that writes `file`, once it is a day old.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    sweep(file.parent, DAY, glob.escape(file.name))
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    own = os.getpid(), partial
    _remove(partial)  # left by an earlier process of the same number
    _unfinished.add(own)
    try:
        yield partial
    finally:
        _remove(partial)
        _unfinished.discard(own)


def remove_unfinished() -> None:
    """Remove the unfinished files of this process, which is about to end."""
    for process, partial in list(_unfinished):
        if process == os.getpid():
            _remove(partial)


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):  # it would hide an earlier error
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


def sweep(folder: Path, age: float = 0.0, names: str = "*") -> None:
    """Remove unfinished files in `folder` whose process has ended and that are at least `age` seconds old.

    `names` is a glob of the names that the files were to get. A process that started after the file was written is
    another one with the same number. Folders that several machines share need an `age`, since this machine does not see
    the processes of the others.
    """
    for partial in folder.glob(f".{names}.*.partial"):
        named = PARTIAL.fullmatch(partial.name)
        with contextlib.suppress(OSError):
            written = partial.stat().st_mtime
            if named and time.time() - written >= age and not _writes(int(named[1]), written):
                _remove(partial)


def _writes(process: int, written: float) -> bool:
    """Whether `process` runs, and already ran when the file was `written` (seconds since the epoch)."""
    try:
        import psutil
    except ModuleNotFoundError:  # in a bare source tree: nothing is swept
        return True
    try:
        return psutil.Process(process).create_time() <= written + 1  # a clock's tick
    except (psutil.Error, ValueError, OverflowError):
        return False


def missing(file: Path) -> list[Path]:
    """`file` and the folders around it that do not exist, innermost first."""
    return [place for place in (file, *file.parents) if not place.exists()]


def remove_empty(places: Iterable[Path]) -> None:
    """Remove a file and folders, given innermost first, up to the first folder that is not empty."""
    with contextlib.suppress(OSError):
        for place in places:
            place.rmdir() if place.is_dir() else place.unlink(missing_ok=True)
