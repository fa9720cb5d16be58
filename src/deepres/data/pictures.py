"""Pictures to test on, at their own size. Only a few are in memory at a time, decoded ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import compress, islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from deepres.data.decode import pixels_or_fault
from deepres.data.division import Division
from deepres.data.listing import Part, Parted, Picture, each, refusal
from deepres.data.resident import held_out
from deepres.data.sources import find_data_set
from deepres.runtime.errors import Say

AHEAD = min(16, os.cpu_count() or 1)  # pictures that are decoded while others are scored
Tested = Literal["train", "test", "all"]
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
    """Pictures of a data set to test on. `classes` is None where the data have no class names.

    `count` is None where only reading all pictures would tell it. `division` is the rule by which data without a test
    part were divided. `skipped` has the names of pictures that did not decode.
    """

    name: str
    root: Path
    classes: tuple[str, ...] | None
    listed: Iterable[Picture]
    count: int | None
    division: str | None = None
    skipped: list[str] = field(default_factory=list[str])

    def where(self, chosen: list[bool]) -> "Pictures":
        """The pictures that a mask, one entry for each, chooses."""
        return replace(self, listed=_Chosen(self.listed, chosen), count=sum(chosen))

    def decoded(
        self, *, image_size: int | None = None, skip_bad: bool = False, first: int = 0, step: int = 1
    ) -> Iterator[Decoded]:
        """Every `step`-th picture from `first` on, in order; the next ones are decoded ahead.

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
    """Each item with the result of `task`, in order. Threads work on the next `AHEAD` items meanwhile."""
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


def pictures_of(
    data: str, part: Tested, split: str | None, skip_bad: bool, say: Say, division: Division = "hash"
) -> Pictures:
    """The pictures of one part of `data` (a name, a folder, or `hf:owner/name`), or of both parts.

    `split` ("45k/5k") divides the training pictures, and its second part becomes the test part. `division` is the rule
    for data without a test part. Raises `InputError` for data that cannot be found or fetched, and for a split that
    does not fit them.
    """
    listing = find_data_set(data, say, division)
    classes, pictures = listing.scan()
    if part == "all":
        listed = pictures
    elif split:
        listed = _split(data, pictures, part, split, skip_bad, say)
    else:
        listed = _OfPart(pictures, part)
    count = sum(1 for _ in listed) if isinstance(pictures, list) else None  # else all would have to be read
    return Pictures(data, listing.root, classes, listed, count, listing.division)


def _split(
    data: str, pictures: Iterable[Picture], part: Part, split: str, skip_bad: bool, say: Say
) -> Iterable[Picture]:
    """The training pictures that a run with this `split` trained on, or those that it held out.

    With `skip_bad`, training divides the pictures that decode; the others are in neither part.
    """

    def is_good(picture: Picture) -> bool:
        return not skip_bad or isinstance(pixels_or_fault(picture), Tensor)

    train = _OfPart(pictures, "train")
    found = [(picture.label, good) for picture, good in each(train, is_good, say, data, "looked at")]
    labels, decodes = torch.tensor(found, dtype=torch.int64).view(-1, 2).unbind(1)
    decodes = decodes.bool()
    chosen, held = decodes.clone(), held_out(data, labels[decodes], split)
    chosen[decodes] = held if part == "test" else ~held
    return _Chosen(train, chosen.tolist())


@dataclass(frozen=True)
class _OfPart:
    """The pictures of one part. Can be iterated more than once."""

    pictures: Iterable[Picture]
    part: Part

    def __iter__(self) -> Iterator[Picture]:
        read = self.pictures.of(self.part) if isinstance(self.pictures, Parted) else self.pictures
        return (picture for picture in read if picture.part == self.part)


@dataclass(frozen=True)
class _Chosen:
    """The pictures that a mask chooses. Can be iterated more than once."""

    pictures: Iterable[Picture]
    chosen: list[bool]

    def __iter__(self) -> Iterator[Picture]:
        return compress(self.pictures, self.chosen)
