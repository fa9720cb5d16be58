"""Which positions of which epochs a batch shows, and where the random numbers of an epoch come from."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from deepres.runtime.errors import InputError


@dataclass(frozen=True)
class Order:
    """The endless stream of epochs of a training run: batch n follows from `seed` and n alone.

    A batch has `batch_size` pictures, of which each rank makes its `part`: without one, all of them.
    """

    seed: int
    batch_size: int
    part: slice = field(default_factory=lambda: slice(None))

    def check(self, total: int) -> None:
        """Raise `InputError` where batches out of `total` pictures are empty."""
        if not total or self.batch_size < 1:
            raise InputError(f"a batch of {self.batch_size} out of {total} images is empty; give a batch size above 0")

    def pieces(self, step: int, total: int) -> Iterator[tuple[int, slice]]:
        """The epoch and the positions in it of each piece of batch `step`, of which `part` is not taken yet.

        Number n of the stream is position n % total of epoch n // total. A batch goes on across the end of an epoch.
        """
        start, stop = step * self.batch_size, (step + 1) * self.batch_size
        while start < stop:
            epoch, position = divmod(start, total)
            piece = slice(position, min(position + stop - start, total))
            yield epoch, piece
            start += piece.stop - piece.start

    def generator(self, epoch: int) -> torch.Generator:
        """The source of all random numbers of an epoch, a function of (seed, epoch) alone."""
        state = np.random.SeedSequence([self.seed % 2**64, epoch]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]) % 2**63)


def grouped(places: Tensor, groups: Tensor, batch_size: int, first: int, generator: torch.Generator) -> Tensor:
    """`places` (N,) of an epoch in such an order that the pictures of a batch are of one group.

    `groups` int64 (N,) are those of the places. The first `first` places fill up the last batch of the epoch before.
    What is left over of each group comes last: batches of it are mixed. The order of the batches is drawn anew.
    """
    head, rest, groups = places[:first], places[first:], groups[first:]
    batches, left = list[Tensor](), list[Tensor]()
    for group in groups.unique().tolist():
        own = rest[groups == group]
        whole = len(own) // batch_size * batch_size
        batches += own[:whole].split(batch_size) if whole else []
        left.append(own[whole:])
    order = torch.randperm(len(batches), generator=generator).tolist()
    return torch.cat([head, *(batches[number] for number in order), *left])


def evenly(total: int, count: int) -> Tensor:
    """`count` evenly spaced places of `total`, int64; all places where `count` is 0 or not below `total`."""
    return torch.arange(count) * total // count if 0 < count < total else torch.arange(total)
