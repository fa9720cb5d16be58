"""A look at every picture: which of them do not decode, and why."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from deepres.data.imagenet import whole
from deepres.data.stream.index import Index
from deepres.data.stream.loader import in_order

BATCH = 64


def faults(index: Index, *, workers: int | None = None) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Decode all pictures; yields, from time to time, how many are done and the names and faults found since."""
    done = 0
    for answer in in_order(index, _decoded, batch_size=BATCH, workers=workers):
        done += len(answer.labels) + len(answer.bad)
        yield done, answer.bad


def _decoded(encoded: bytes, draws: Sequence[float]) -> Tensor:
    """Nothing of the pixels, once they are known to be there."""
    whole(encoded)
    return torch.empty(0, 0, 0, dtype=torch.uint8)
