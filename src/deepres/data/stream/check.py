"""A look at every picture: which of them do not decode, and why."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from deepres.data.imagenet import whole
from deepres.data.rgb import MAX_PIXELS
from deepres.data.stream.index import Index
from deepres.data.stream.loader import in_order

BATCH = 64


def faults(
    index: Index, *, workers: int | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Decode all pictures; yields, from time to time, how many are done and the names and faults found since."""
    done = 0
    for answer in in_order(index, partial(_decoded, max_pixels=max_pixels), batch_size=BATCH, workers=workers):
        done += len(answer.labels) + len(answer.bad)
        yield done, answer.bad


def _decoded(encoded: bytes, draws: Sequence[float], *, max_pixels: int) -> Tensor:
    """Nothing of the pixels, once they are known to be there."""
    whole(encoded, max_pixels=max_pixels)
    return torch.empty(0, 0, 0, dtype=torch.uint8)
