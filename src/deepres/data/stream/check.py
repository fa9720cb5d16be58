"""Checks of every picture: which do not decode and why, and which have the same content."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from deepres.data.crops import whole
from deepres.data.manifest import Manifest
from deepres.data.stream.index import Index, Parts
from deepres.data.stream.loader import Reading, Samples, in_order

BATCH = 64


def faults(index: Index, *, workers: int | None = None) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Decode all pictures. Yields, after each batch, how many are done, and the names and faults of its bad ones."""
    done = 0
    samples = Samples(index, _decode, len, index.label)
    for answer in in_order(samples, BATCH, Reading(workers, skip_bad=True)):
        done += (answer.batch or 0) + len(answer.bad)
        yield done, answer.bad


@dataclass(frozen=True)
class Copies:
    """The names of all pictures with one content, and the `classes` that they are in.

    With `both_parts`, training and test pictures are among them: the network is tested on what it was trained on.
    """

    names: tuple[str, ...]
    both_parts: bool
    classes: tuple[str, ...]


def copies(parts: Parts) -> list[Copies]:
    """The pictures whose encoded bytes are there more than once: first those in both parts, then those in two classes.

    Empty and unreadable files are not copies of each other.
    """
    # Group the pictures of both parts by digest. That of no bytes is not counted.
    digests, labels = (torch.cat([getattr(part, field) for part in parts]) for field in ("digests", "labels"))
    values, group, counts = digests.unique(return_inverse=True, return_counts=True)
    counts[values == Manifest.of(("",), (hashlib.sha256(b"").digest(),)).digests] = 1
    members: dict[int, list[int]] = {}
    for place in (counts[group] > 1).nonzero().flatten().tolist():
        members.setdefault(int(group[place]), []).append(place)
    # Name the pictures of each group.
    train, classes = len(parts.train), parts.train.classes

    def name(place: int) -> str:
        return parts.train.names[place] if place < train else parts.test.names[place - train]

    found = [
        Copies(
            tuple(map(name, places)),
            both_parts=places[0] < train <= places[-1],
            classes=tuple(classes[label] for label in labels[places].unique().tolist()),
        )
        for places in members.values()
    ]
    return sorted(found, key=lambda copy: (not copy.both_parts, len(copy.classes) < 2))


def _decode(encoded: bytes, draws: Sequence[float], label: int) -> None:
    """Decode a picture and keep nothing of it: its pixels need not go to another process."""
    whole(encoded)
