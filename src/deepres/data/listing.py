"""Pictures that were found but not decoded yet. All readers of layouts give a `Listing` to `decode` and `stream`."""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

from PIL import Image

from deepres.runtime.errors import InputError, Say
from deepres.runtime.files import require_regular

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = ("train", "test")
MOST_CLASSES = 2**20  # in data without class names; a larger label is an id of something
MOST_BYTES = 2**29  # of an encoded picture
CHUNK, PIECE = 1024, 32  # encoded pictures in memory at a time, and given to a thread at a time
CHUNK_BYTES = 2**26  # in memory at a time, and what the last picture adds
SAY_EVERY_SECONDS = 5.0
SHOWN_CLASSES = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """A piece of a file: `size` bytes from `offset` on; -1 means up to its end."""

    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The bytes. Raises `OSError`, also for more than `MOST_BYTES` and for what is not a regular file."""
        require_regular(self.path, MOST_BYTES if self.size < 0 else None)
        if self.size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"{self.size:,} bytes, more than the limit of {MOST_BYTES:,}", str(self.path))
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


Content = bytes | Path | Span | Image.Image


@dataclass(frozen=True)
class Picture:
    """One picture: its name (the file, and the row in a table), label, part and encoded content.

    A set without a test part is divided by the `key`, the class and the name within it ("ant/1.jpg"), or by the content
    of pictures without such a name, as rows of a table.
    """

    name: str
    label: int
    part: Part
    content: Content
    key: str | None = None


@runtime_checkable
class Parted(Protocol):
    """Pictures of which one part can be read without the other."""

    def of(self, part: Part) -> Iterable[Picture]:
        """The pictures of one part."""
        ...


@dataclass(frozen=True)
class Listing:
    """A data set that was found: the folder, the files that its content depends on, and how to read them.

    `scan()` gives the class names (None where the files have none) and the pictures, which can be iterated more than
    once. `divides` means that there is no test part: all are training pictures until `sources.find_data_set` divides
    them by the rule `division`. `notes` are sentences for the user about what was found and what is not read.
    """

    root: Path
    files: tuple[Path, ...]
    scan: Callable[[], tuple[tuple[str, ...] | None, Iterable[Picture]]]
    divides: bool = False
    notes: tuple[str, ...] = ()
    division: str | None = None


def content_of(content: Content) -> bytes:
    """The encoded bytes of a picture, or the pixels of one that is stored decoded. Raises `OSError`."""
    if isinstance(content, Image.Image):
        return content.tobytes()
    if isinstance(content, Path):
        return Span(content).read()
    return content.read() if isinstance(content, Span) else content


def digest_of(picture: Picture) -> bytes:
    """SHA-256 of the content. An unreadable file counts as empty; the error is raised when it is decoded."""
    try:
        content = content_of(picture.content)
    except OSError:
        content = b""
    return hashlib.sha256(content).digest()


def numbered(labels: Iterable[int]) -> tuple[str, ...]:
    """Class names for data without any: "0", "1", ... up to the largest label."""
    return tuple(str(label) for label in range(1 + max(labels, default=-1)))


def counted(train: int, test: int, classes: Sequence[str]) -> str:
    """The numbers of images and classes, and the names of the first classes, in a sentence."""
    shown = ", ".join([*classes[:SHOWN_CLASSES], *["..."] * (len(classes) > SHOWN_CLASSES)])
    alone = "classes" if len(classes) != 1 else "class alone"
    return f"{train:,} training and {test:,} test images of {len(classes):,} {alone} ({shown})"


def check_label(root: Path, picture: Picture, classes: tuple[str, ...] | None) -> None:
    """Raise `InputError` for a label that is not the number of a class."""
    if not 0 <= picture.label < (MOST_CLASSES if classes is None else len(classes)):
        known = f"0 to {(MOST_CLASSES if classes is None else len(classes)) - 1}"
        raise InputError(f"{root}: {picture.name} has the label {picture.label}, not {known}; mend the label")


def refusal(root: Path, name: str, reason: str) -> InputError:
    """The error for a picture that does not decode."""
    return InputError(f"{root}: {name} does not decode ({reason}); repair or remove it, or give --skip-bad")


def _chunk(pictures: Iterator[Picture]) -> list[Picture]:
    """The next pictures, as many as may be in memory at a time; none at the end."""
    chunk, held = list[Picture](), 0
    for picture in islice(pictures, CHUNK):
        chunk.append(picture)
        held += len(picture.content) if isinstance(picture.content, bytes) else 0
        if held >= CHUNK_BYTES:
            break
    return chunk


def each(
    pictures: Iterable[Picture], task: Callable[[Picture], T], say: Say, name: str, verb: str
) -> Iterator[tuple[Picture, T]]:
    """Each picture with the result of `task`, in order. There are as many threads as cores."""

    def work(piece: list[Picture]) -> list[T]:
        return [task(picture) for picture in piece]

    stream, done, said = iter(pictures), 0, time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := _chunk(stream):
            pieces = [chunk[start : start + PIECE] for start in range(0, len(chunk), PIECE)]
            for piece, results in zip(pieces, pool.map(work, pieces), strict=True):
                yield from zip(piece, results, strict=True)
            done += len(chunk)
            if time.monotonic() - said > SAY_EVERY_SECONDS:
                say(f"{name}: {verb} {done:,} images")
                said = time.monotonic()
