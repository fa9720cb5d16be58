"""The samples of classification: pictures of one size, stacked, and their class labels."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from deepres.data.stream.index import Index
from deepres.data.stream.loader import Samples

View = Callable[[bytes, Sequence[float]], Tensor]
Batch = tuple[Tensor, Tensor]


def labelled(index: Index, view: View, draws: int = 0) -> Samples[tuple[Tensor, int], Batch]:
    """The samples of classification: `view(encoded, draws)` uint8 (C, H, W), of one size for all, and the class.

    A batch is the pictures uint8 (n, C, H, W), channels-last in memory, and their labels int64 (n,).
    """
    return Samples(index, partial(_with_label, view), _stacked, index.label, draws)


def shifted(shift: Callable[[Tensor], Tensor]) -> Callable[[Batch, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """What finishes batches of `labelled`: their pictures, the colour shift of each, `shift(draws)`, and labels."""

    def finished(batch: Batch, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pictures, labels = batch
        return pictures, shift(draws), labels

    return finished


def _with_label(view: View, encoded: bytes, draws: Sequence[float], label: int) -> tuple[Tensor, int]:
    return view(encoded, draws), label


def _stacked(samples: list[tuple[Tensor, int]]) -> Batch:
    """Stacked in the memory order of decoded pictures, (n, H, W, C)."""
    pictures, labels = zip(*samples, strict=True)
    stacked = torch.stack([picture.permute(1, 2, 0) for picture in pictures])
    return stacked.permute(0, 3, 1, 2), torch.tensor(labels, dtype=torch.int64)
