"""Batches of a data set that is resident in memory, on the device of the network."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deepres.data.augment import channels_last, crop_flip, normalise
from deepres.data.order import epoch_generator, epoch_pieces
from deepres.data.resident import ImageSet
from deepres.runtime.errors import InputError


@dataclass(frozen=True)
class _Epoch:
    """The draws of one epoch, (N,) each: which image stands at each position, and how it is cut."""

    number: int
    order: Tensor
    rows: Tensor
    columns: Tensor
    flips: Tensor


class Batches:
    """Training batches as a pure function of the step.

    The images form an endless stream of epochs: batch `step` holds the stream's numbers step*batch_size and
    on, number n is position n % N of epoch n // N, and every epoch shows each of the N images once. A batch
    goes on across the end of an epoch, so that all have exactly `batch_size` images (popular code drops or
    shortens the last one; the paper does not say). The order of an epoch and the draws of the augmentation
    at a position (row and column 0 to 2*pad, flip) depend on (seed, epoch, position) alone: not on the batch
    size, and not on what was asked before, so that a resumed run needs no state. With `alternate_flips` an image is
    flipped in every second epoch, by chance from the first or the second one on: over two epochs both ways are seen.
    `part` is the slice of each batch that is made, of those who share a batch among them; without it the whole.

    Raises `InputError` for a set without images or a batch size below 1.
    """

    def __init__(
        self,
        images: ImageSet,
        mean: Tensor,
        batch_size: int,
        seed: int,
        device: torch.device,
        augment: bool,
        pad: int = 4,
        alternate_flips: bool = False,
        part: slice = slice(None),
    ):
        if not len(images) or batch_size < 1:
            raise InputError(f"a batch of {batch_size} out of {len(images)} images is empty; give a batch size above 0")
        self.images = images.images.to(device)
        self.labels = images.labels.to(device)
        self.mean = channels_last(mean.to(device))
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.augment, self.pad, self.alternate_flips, self.part = augment, pad, alternate_flips, part
        self._epoch: _Epoch | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 (n, C, H, W), channels-last in memory, and labels int64 (n,), n being the batch size.

        Of a `part`, n is its length.
        """
        pieces: list[tuple[Tensor, ...]] = []
        for number, piece in epoch_pieces(step, self.batch_size, len(self.labels)):
            epoch = self._draws(number)
            pieces.append((epoch.order[piece], epoch.rows[piece], epoch.columns[piece], epoch.flips[piece]))
        order, rows, columns, flips = (torch.cat(parts)[self.part] for parts in zip(*pieces, strict=True))
        images = self.images[order]
        if self.augment:
            images = crop_flip(images, rows, columns, flips, self.pad)
        images = images.contiguous(memory_format=torch.channels_last)
        return normalise(images, self.mean), self.labels[order]

    def close(self) -> None:
        """Nothing is at work on the next batches."""

    def _draws(self, number: int) -> _Epoch:
        """The draws of an epoch, made for all positions at once; the newest epoch is kept."""
        if self._epoch is None or self._epoch.number != number:
            generator = epoch_generator(self.seed, number)
            total, offsets = len(self.labels), 2 * self.pad + 1
            order = torch.randperm(total, generator=generator)
            rows, columns = (torch.randint(offsets, (total,), generator=generator) for _ in range(2))
            chances = torch.randint(2, (total,), generator=generator)
            if self.alternate_flips:
                first = torch.randint(2, (total,), generator=epoch_generator(self.seed, 0))
                chances = (first[order] + number) % 2
            drawn = (order, rows, columns, chances.bool())
            self._epoch = _Epoch(number, *(draw.to(self.device) for draw in drawn))
        return self._epoch


def test_batches(
    images: ImageSet, mean: Tensor, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The images as they are and in order ("the single view of the original 32x32 image", Sec. 4.2).

    Yields float32 (n, C, H, W), channels-last in memory, and labels int64 (n,); the last batch may be
    shorter.
    """
    mean = channels_last(mean.to(device))
    parts = zip(images.images.split(batch_size), images.labels.split(batch_size), strict=True)
    for pixels, labels in parts:
        pixels = pixels.to(device).contiguous(memory_format=torch.channels_last)
        yield normalise(pixels, mean), labels.to(device)
