"""Batches of a data set that is in the memory of the device."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from deepres.data.augment import CropFlip, channels_last, crop_flip, normalise
from deepres.data.order import Order
from deepres.data.resident import ImageSet

# From images uint8 (N, C, H, W), labels (N,), `Batches.raw`, the mean image and the padding to a batch.
Cut = Callable[[Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Batches:
    """Training batches as a pure function of (seed, step).

    The images form an endless stream of epochs, each of which shows every image once. A batch goes on across the end of
    an epoch, so that all have exactly `batch_size` images (popular code drops or shortens the last one; the paper does
    not say). The order of an epoch and the random numbers of the augmentation at a position (row and column 0 to 2*pad,
    flip) depend on (seed, epoch, position) alone: not on the batch size, and not on what was asked before, so that a
    resumed run needs no state. Without an `augmentation` images are shown as they are. `cut` augments as one operation.

    Raises `InputError` for a set without images or a batch size below 1.
    """

    def __init__(
        self,
        images: ImageSet,
        mean: Tensor,
        order: Order,
        device: torch.device,
        augmentation: CropFlip | None,
        cut: Cut | None = None,
    ):
        order.check(len(images))
        self.images = images.images.to(device)
        self.labels = images.labels.to(device)
        self.mean = channels_last(mean.to(device))
        self.order, self.device, self.augmentation, self.cut = order, device, augmentation, cut
        self._newest: tuple[int, Tensor] | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 (n, C, H, W), channels-last in memory, and labels int64 (n,), n being the batch size.

        Where the order has a `part`, n is the length of this part.
        """
        return self.ready(self.raw(step))

    def raw(self, step: int) -> tuple[Tensor]:
        """What batch `step` follows from, int64 (4, n): the place of each image in the set, row, column and flip."""
        pieces = self.order.pieces(step, len(self.labels))
        parts = [self._draws(number)[:, piece] for number, piece in pieces]
        return ((parts[0] if len(parts) == 1 else torch.cat(parts, 1))[:, self.order.part],)

    def ready(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The batch that follows from `raw`, by operations of the device alone."""
        if self.cut is not None and self.augmentation is not None:
            return self.cut(self.images, self.labels, raw[0], self.mean, self.augmentation.pad)
        places, rows, columns, flips = raw[0]
        images = self.images[places]
        if self.augmentation is not None:
            images = crop_flip(images, rows, columns, flips.bool(), self.augmentation.pad)
        images = images.contiguous(memory_format=torch.channels_last)
        return normalise(images, self.mean), self.labels[places]

    def close(self) -> None:
        """Nothing is at work on the next batches."""

    def _draws(self, number: int) -> Tensor:
        """The random numbers of an epoch, int64 (4, N), made for all positions at once; the newest epoch is kept.

        Its rows are the place of the image at each position, the upper left corner of its crop, and if it is flipped.
        """
        if self._newest is None or self._newest[0] != number:
            generator, augmentation = self.order.generator(number), self.augmentation or CropFlip()
            total, offsets = len(self.labels), 2 * augmentation.pad + 1
            # The order of these calls decides the batches of all runs.
            places = torch.randperm(total, generator=generator)
            rows, columns = (torch.randint(offsets, (total,), generator=generator) for _ in range(2))
            flips = torch.randint(2, (total,), generator=generator)
            if augmentation.alternate_flips:
                first = torch.randint(2, (total,), generator=self.order.generator(0))
                flips = (first[places] + number) % 2
            drawn = torch.stack([places, rows, columns, flips])
            if self.device.type == "cuda":  # from pinned memory, the copy does not wait for the steps under way
                drawn = drawn.pin_memory()
            self._newest = number, drawn.to(self.device, non_blocking=True)
        return self._newest[1]


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
