"""Pictures that were found but not decoded yet: what the readers of the layouts give to `decode`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from PIL import Image

Say = Callable[[str], None]
Part = Literal["train", "test"]
TEST_EVERY = 5


@dataclass(frozen=True)
class Picture:
    """One picture: its name (file, and row where a file holds many), label, part and encoded content."""

    name: str
    label: int
    part: Part
    content: bytes | Path | Image.Image


@dataclass(frozen=True)
class Listing:
    """A data set that was found: the folder, the files that its content depends on, and how to read them.

    `read()` gives the class names (None where the files have none) and the pictures, which can be gone
    through more than once.
    """

    root: Path
    files: tuple[Path, ...]
    read: Callable[[], tuple[tuple[str, ...] | None, Iterable[Picture]]]


def divided(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Divide pictures that have no test part by a fixed rule: of each class, every fifth is a test picture.

    The order of the pictures is the sorted order of their files, so that the same files give the same parts.
    """
    seen: dict[int, int] = {}
    for picture in pictures:
        seen[picture.label] = seen.get(picture.label, 0) + 1
        yield replace(picture, part="test" if seen[picture.label] % TEST_EVERY == 0 else "train")
