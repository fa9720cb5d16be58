"""Test pictures at their own size, decoded one after another, so that memory does not grow with the data set."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from deepres.data.decode import picture_pixels
from deepres.data.listing import Picture, Say
from deepres.data.sets import held_out
from deepres.data.sources import find
from deepres.errors import InputError


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
        """Every `step`-th picture from `first` on, in order, each when it is asked for.

        With `image_size`, a picture of another size is resized by its shorter side and cut at its centre. Raises
        `InputError` for a picture that does not decode; with `skip_bad` its name goes to `skipped` instead.
        """
        for place, picture in islice(enumerate(self.listed), first, None, step):
            try:
                pixels = picture_pixels(self.root, picture, image_size)
            except InputError:
                if not skip_bad:
                    raise
                self.skipped.append(picture.name)
                continue
            yield Decoded(place, pixels, picture.label, picture.name)


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
    part: str
    chosen: list[bool] | None = None

    def __iter__(self) -> Iterator[Picture]:
        own = (picture for picture in self.pictures if picture.part == self.part)
        return own if self.chosen is None else compress(own, self.chosen)
