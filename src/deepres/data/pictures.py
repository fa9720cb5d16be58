"""Test pictures at their own size, a few decoded ahead, so that memory does not grow with the data set."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import compress, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from deepres.data.decode import picture_pixels
from deepres.data.listing import Part, Parted, Picture, Say
from deepres.data.sets import held_out
from deepres.data.sources import find
from deepres.errors import InputError

AHEAD = min(16, os.cpu_count() or 1)  # pictures that are decoded while others are scored
Listed = tuple[int, Picture]


class Decoded(NamedTuple):
    """One picture: its place in the order of all, pixels uint8 (3, H, W), label and name."""

    place: int
    pixels: Tensor
    label: int
    name: str


@dataclass
class Pictures:
    """The test pictures of a data set. `classes` is None where no file names them, `count` where it is not known."""

    name: str
    root: Path
    classes: tuple[str, ...] | None
    listed: Iterable[Picture]
    count: int | None
    skipped: list[str] = field(default_factory=list[str])

    def decoded(
        self, *, image_size: int | None = None, skip_bad: bool = False, first: int = 0, step: int = 1
    ) -> Iterator[Decoded]:
        """Every `step`-th picture from `first` on, in order, some decoded ahead.

        With `image_size`, a picture of another size is resized by its shorter side and cut at its centre. Raises
        `InputError` for a picture that does not decode; with `skip_bad` its name goes to `skipped` instead.
        """
        listed = islice(enumerate(self.listed), first, None, step)

        def decode(entry: Listed) -> Tensor:
            return picture_pixels(self.root, entry[1], image_size)

        with ThreadPoolExecutor(AHEAD) as pool:
            for (place, picture), decoding in _ahead(pool, listed, decode):
                try:
                    pixels = decoding.result()
                except InputError:
                    if not skip_bad:
                        raise
                    self.skipped.append(picture.name)
                    continue
                yield Decoded(place, pixels, picture.label, picture.name)


def _ahead(
    pool: Executor, items: Iterable[Listed], task: Callable[[Listed], Tensor]
) -> Iterator[tuple[Listed, Future[Tensor]]]:
    """Items with what `task` gives of them, in order, the next `AHEAD` of them at work."""
    waiting: deque[tuple[Listed, Future[Tensor]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(task, item)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        yield from waiting
    finally:
        for _, decoding in waiting:
            decoding.cancel()


def pictures_of_test(data: str, split: str | None, skip_bad: bool, say: Say) -> Pictures:
    """The test pictures of `data`, a name, a folder, or `hf:owner/name`; with `split` the held-out training pictures.

    Raises `InputError` for data that cannot be found or fetched, and a split that does not divide it.
    """
    listing = find(data, say)
    classes, pictures = listing.read()
    listed = _held_out(data, listing.root, pictures, split, skip_bad) if split else _Part(pictures, "test")
    count = sum(1 for _ in listed) if isinstance(pictures, list) else None  # else it takes to read them all
    return Pictures(data, listing.root, classes, listed, count)


def _held_out(data: str, root: Path, pictures: Iterable[Picture], split: str, skip_bad: bool) -> "_Part":
    """The training pictures that training on `split` did not see: it left out the bad ones before it divided."""
    train = _Part(pictures, "train")
    good = [not skip_bad or _decodes(root, picture) for picture in train]
    labels = torch.tensor([picture.label for picture in compress(train, good)])
    chosen = torch.tensor(good)
    chosen[chosen.clone()] = held_out(data, labels, split)
    return _Part(pictures, "train", chosen.tolist())


def _decodes(root: Path, picture: Picture) -> bool:
    try:
        picture_pixels(root, picture)
    except InputError:
        return False
    return True


@dataclass(frozen=True)
class _Part:
    """The pictures of one part, or those of them that are `chosen`; can be gone through more than once."""

    pictures: Iterable[Picture]
    part: Part
    chosen: list[bool] | None = None

    def __iter__(self) -> Iterator[Picture]:
        read = self.pictures.of(self.part) if isinstance(self.pictures, Parted) else self.pictures
        own = (picture for picture in read if picture.part == self.part)
        return own if self.chosen is None else compress(own, self.chosen)
