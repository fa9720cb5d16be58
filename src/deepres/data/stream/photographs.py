"""The training batches of photographs on disk: crops of Sec. 3.4, on the device that trains."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from deepres.data.augment import channels_last
from deepres.data.crops import DRAWS, colour_shift, finish, scale_crop_flip
from deepres.data.order import Order
from deepres.data.stream.ahead import Ahead, Raw, sent
from deepres.data.stream.index import Index
from deepres.data.stream.jpegs import DecodingError, Undecoded, decoded, undecoded
from deepres.data.stream.labelled import Batch, labelled, shifted
from deepres.data.stream.loader import Reading, Stream

Decode = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class CropColour:
    """The augmentation of Sec. 3.4: crops of pictures whose shorter side is drawn from `sides`, and shifted colours.

    `mean` float32 (3, crop, crop) is subtracted. `values`, `vectors` and `sigma` are those of `crops.pca_colour`.
    """

    crop: int
    sides: tuple[int, int]
    mean: Tensor
    values: Tensor
    vectors: Tensor
    sigma: float = 0.1


class Photographs:
    """Training batches as a pure function of (seed, step), from pictures on disk; see `Stream`.

    With `decode="gpu"`, nvJPEG decodes most JPEG files and the GPU cuts them (`jpegs`); pixels then differ a little
    from those that the processor decodes. A batch with a file that the GPU does not decode is decoded by the processor.
    `jpegs.require_nvjpeg` tells whether there is nvJPEG.
    """

    def __init__(
        self,
        index: Index,
        augmentation: CropColour,
        order: Order,
        reading: Reading,
        device: torch.device,
        decode: Decode = "cpu",
    ):
        own = augmentation
        reading = replace(reading, pinned=device.type == "cuda")
        self._device, self._say, self._told = device, reading.say, False
        self._mean = channels_last(own.mean.to(device))
        shift = partial(colour_shift, values=own.values, vectors=own.vectors, sigma=own.sigma)
        # Worker processes decode and cut, or only read; this process then decodes what the GPU does not.
        view = partial(scale_crop_flip, crop=own.crop, sides=own.sides)
        here = reading if decode == "cpu" else replace(reading, workers=0)
        self._crops = Stream(labelled(index, view, DRAWS), shifted(shift), order, here)
        self._files: Stream[tuple[Undecoded, Tensor]] | None = None
        if decode == "gpu":
            samples = undecoded(index, own.crop, own.sides, DRAWS)
            self._files = Stream(samples, lambda batch, draws: (batch, shift(draws)), order, reading)
        self._ahead = Ahead(device)

    def raw(self, step: int) -> Raw:
        """What the batch of a step follows from, on the device, of the same shapes in every step.

        Crops uint8 (n, 3, crop, crop), channels-last in memory, colour shifts float32 (n, 3), and labels int64 (n,).
        """
        return self._ahead.made(partial(self._make, step))

    def ready(self, raw: Raw) -> Batch:
        """Images float32 (n, 3, crop, crop) and labels, by operations of the device alone."""
        crops, shift, labels = raw
        return finish(crops, shift, self._mean), labels

    def batch(self, step: int) -> Batch:
        """Images float32 (n, 3, crop, crop), channels-last in memory, and labels int64 (n,), on the device."""
        return self.ready(self.raw(step))

    def close(self) -> None:
        """End the worker processes. A later batch starts new ones."""
        for stream in (self._crops, self._files):
            if stream is not None:
                stream.close()

    def _make(self, step: int) -> Raw:
        if self._files is not None:
            batch, shift = self._files.batch(step)
            try:
                return decoded(batch, self._device), *sent((shift, batch.labels), self._device)
            except DecodingError as error:
                self._tell(error)
        return sent(self._crops.batch(step), self._device)

    def _tell(self, error: DecodingError) -> None:
        """Tell the first time that the processor takes the GPU's place."""
        if not self._told:
            self._say(f"batches with a JPEG that the GPU does not decode are decoded by the processor ({error})")
        self._told = True
