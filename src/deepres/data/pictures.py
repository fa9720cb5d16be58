"""Test pictures at their own size, a few decoded ahead, so that memory does not grow with the data set."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import compress, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from deepres.data.decode import pixels_or_fault
from deepres.data.listing import Part, Parted, Picture, Say, each, refusal
from deepres.data.sets import held_out
from deepres.data.sources import find

AHEAD = min(16, os.cpu_count() or 1)  # pictures that are decoded while others are scored
T = TypeVar("T")
Made = TypeVar("Made")


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

        def decode(entry: tuple[int, Picture]) -> Tensor | str:
            return pixels_or_fault(entry[1], image_size)

        for (place, picture), pixels in ahead(listed, decode):
            if isinstance(pixels, Tensor):
                yield Decoded(place, pixels, picture.label, picture.name)
            elif skip_bad:
                self.skipped.append(picture.name)
            else:
                raise refusal(self.root, picture.name, pixels)


def ahead(items: Iterable[T], task: Callable[[T], Made]) -> Iterator[tuple[T, Made]]:
    """Items with what `task` makes of them, in order, the next `AHEAD` of them at work in threads."""
    waiting: deque[tuple[T, Future[Made]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(task, item)))
                if len(waiting) > AHEAD:
                    first, making = waiting.popleft()
                    yield first, making.result()
            yield from ((item, making.result()) for item, making in waiting)
        finally:
            for _, making in waiting:
                making.cancel()


def pictures_of_test(data: str, split: str | None, skip_bad: bool, say: Say) -> Pictures:
    """The test pictures of `data`, a name, a folder, or `hf:owner/name`; with `split` the held-out training pictures.

    Raises `InputError` for data that cannot be found or fetched, and a split that does not divide it.
    """
    listing = find(data, say)
    classes, pictures = listing.read()
    listed = _held_out(data, pictures, split, skip_bad, say) if split else _Part(pictures, "test")
    count = sum(1 for _ in listed) if isinstance(pictures, list) else None  # else it takes to read them all
    return Pictures(data, listing.root, classes, listed, count)


def _held_out(data: str, pictures: Iterable[Picture], split: str, skip_bad: bool, say: Say) -> "_Part":
    """The training pictures that training on `split` did not see: it left out the bad ones before it divided."""

    def is_good(picture: Picture) -> bool:
        return not skip_bad or isinstance(pixels_or_fault(picture), Tensor)

    found = each(_Part(pictures, "train"), is_good, say, data, "looked at")
    labels, good = zip(*((picture.label, kept) for picture, kept in found), strict=True)
    chosen = torch.tensor(good)
    chosen[chosen.clone()] = held_out(data, torch.tensor(labels)[chosen], split)
    return _Part(pictures, "train", chosen.tolist())


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
