"""Divides a set without a test part by a hash of each picture, so that a picture stays in its part for ever.

The division 45k/5k of Sec. 4.2 is `hold_out` in `resident.py`.
"""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Literal

from deepres.data.listing import Part, Picture, content_of

Division = Literal["hash", "place"]  # place: every fifth of each class, as early run folders have it
TEST_EVERY = 5
RANGE = 2**64  # hashes are below


def divided(pictures: Iterable[Picture], rule: Division = "hash") -> Iterable[Picture]:
    """The pictures with their part set: about one in `TEST_EVERY` is a test picture. Can be iterated more than once.

    By the rule `hash`, a picture is a test picture where its hash, as a fraction, is below 1 / `TEST_EVERY`. What is
    hashed is its key (its class and its name within that, in one Unicode form), or its content where it has no key. So
    adding or removing pictures, or moving the folder, changes the part of no other picture. There are two exceptions.
    If all pictures of a class would be test pictures, the one with the largest hash becomes a training picture. If the
    set would have no test picture, the one with the least hash becomes one, unless it is the only training picture of
    its class.
    """
    found = _Divided(pictures, rule)
    return list(found) if isinstance(pictures, list) else found


@dataclass(frozen=True)
class _Divided:
    """Divided pictures. All of them are read once for their parts, before the first is given."""

    pictures: Iterable[Picture]
    rule: Division

    def __iter__(self) -> Iterator[Picture]:
        for picture, part in zip(self.pictures, self._parts, strict=True):
            yield replace(picture, part=part)

    @cached_property
    def _parts(self) -> list[Part]:
        if self.rule == "place":
            return _by_place([picture.label for picture in self.pictures])
        return _by_hash([(picture.label, _hash(picture)) for picture in self.pictures])


def _hash(picture: Picture) -> int:
    """A whole number from 0 to below `RANGE`."""
    if picture.key is None:
        hashed = content_of(picture.content)
    else:
        hashed = unicodedata.normalize("NFC", picture.key).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(hashed).digest()[:8], "big")


def _by_hash(pictures: list[tuple[int, int]]) -> list[Part]:
    """The part of each (label, hash)."""
    # The extremes of each class, for the two exceptions.
    least, largest = dict[int, int](), dict[int, int]()
    for label, value in pictures:
        least[label] = min(value, least.get(label, RANGE))
        largest[label] = max(value, largest.get(label, -1))
    tests = [value * TEST_EVERY < RANGE and value < largest[label] for label, value in pictures]
    if not any(tests):
        first = min((value for label, value in least.items() if value < largest[label]), default=-1)
        tests = [value == first and value < largest[label] for label, value in pictures]
    return ["test" if is_test else "train" for is_test in tests]


def _by_place(labels: list[int]) -> list[Part]:
    """Every fifth picture of each class is a test picture, in the sorted order of the files."""
    places: defaultdict[int, Iterator[int]] = defaultdict(lambda: count(1))
    return ["test" if next(places[label]) % TEST_EVERY == 0 else "train" for label in labels]
