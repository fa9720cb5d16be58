"""Which pictures of a set without a test part are test pictures: told by a hash, so that each keeps its side."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from deepres.data.listing import Part, Picture, content_of

Division = Literal["hash", "place"]  # place: how run folders of before were divided, by every fifth of each class
TEST_EVERY = 5
RANGE = 2**64  # of hashes


def divided(pictures: Iterable[Picture], rule: Division = "hash") -> Iterable[Picture]:
    """Give each picture its part: about one in `TEST_EVERY` is a test picture. Can be gone through more than once.

    By the rule `hash` the hash of a picture's key (its class and its name within it, whatever Unicode form that has),
    or of its content where it has no key, tells its part: as a fraction, it is below 1 / `TEST_EVERY` for a test
    picture. So pictures that come or go move no other, nor does another place of the folder. There are two exceptions:
    of a class of test pictures alone, the one with the largest hash is a training picture; and where the set would
    have no test picture, the one with the least hash of all is one, unless it is its class's only training picture.
    """
    found = _Divided(pictures, rule)
    return list(found) if isinstance(pictures, list) else found


@dataclass(frozen=True)
class _Divided:
    """Pictures whose parts are told by a first look at all of them."""

    pictures: Iterable[Picture]
    rule: Division

    def __iter__(self) -> Iterator[Picture]:
        for picture, part in zip(self.pictures, self._parts, strict=True):
            yield replace(picture, part=part)

    def of(self, part: Part) -> Iterator[Picture]:
        """The pictures of one part, which are in the same files as those of the other."""
        return (picture for picture in self if picture.part == part)

    @cached_property
    def _parts(self) -> list[Part]:
        if self.rule == "place":
            return _by_place([picture.label for picture in self.pictures])
        return _by_hash([(picture.label, _hash(picture)) for picture in self.pictures])


def _hash(picture: Picture) -> int:
    """From 0 to below `RANGE`."""
    if picture.key is None:
        known = content_of(picture.content)
    else:
        known = unicodedata.normalize("NFC", picture.key).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(known).digest()[:8], "big")


def _by_hash(pictures: list[tuple[int, int]]) -> list[Part]:
    """The part of each (label, hash)."""
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
    """Of each class every fifth, in the sorted order of the files."""
    seen: dict[int, int] = {}
    parts: list[Part] = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        parts.append("test" if seen[label] % TEST_EVERY == 0 else "train")
    return parts
