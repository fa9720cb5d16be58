"""The training batches of photographs on disk: crops of Sec. 3.4, on the device that trains."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from deepres.data.augment import channels_last
from deepres.data.crops import DRAWS, colour_shift, finish, scale_crop_flip
from deepres.data.order import Order
from deepres.data.resampling import resamples
from deepres.data.stream.ahead import Ahead, Raw, sent
from deepres.data.stream.index import Index
from deepres.data.stream.labelled import Batch, labelled, shifted
from deepres.data.stream.loader import Reading, Stream
from deepres.data.stream.uncut import Cropping, DecodingError, Uncut, crops, uncut

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

    A GPU cuts the crops itself (`uncut`), with the bits of the processor. With `decode="gpu"`, nvJPEG decodes most JPEG
    files, too; pixels then differ a little. A batch with a file that it does not decode is decoded by the processor.
    `uncut.require_nvjpeg` tells whether there is nvJPEG. `cuts` says whether the device cuts; by default a GPU does
    where it can.
    """

    def __init__(
        self,
        index: Index,
        augmentation: CropColour,
        order: Order,
        reading: Reading,
        device: torch.device,
        decode: Decode = "cpu",
        cuts: bool | None = None,
    ):
        own, self._device, self._say, self._told = augmentation, device, reading.say, False
        self._crop, self._mean = own.crop, channels_last(own.mean.to(device))
        shift = partial(colour_shift, values=own.values, vectors=own.vectors, sigma=own.sigma)
        view = partial(scale_crop_flip, crop=own.crop, sides=own.sides)
        # What the device cuts, if it cuts; what the processor cuts, in worker processes or in the place of the device.
        cuts = decode == "gpu" or (device.type == "cuda" and resamples()) if cuts is None else cuts
        reading = replace(reading, pinned=device.type == "cuda")
        here = replace(reading, workers=0) if cuts else reading
        self._cut = Stream(labelled(index, view, DRAWS), shifted(shift), order, here)
        self._uncut: Stream[tuple[Uncut, Tensor]] | None = None
        if cuts:
            samples = uncut(index, Cropping(own.crop, own.sides, nvjpeg=decode == "gpu"), DRAWS)
            self._uncut = Stream(samples, lambda batch, draws: (batch, shift(draws)), order, reading)
        self._ahead = Ahead(device)
        self._newest: tuple[int, Raw] | None = None

    def raw(self, step: int) -> Raw:
        """What the batch of a step follows from, on the device, of the same shapes in every step.

        Crops uint8 (n, 3, crop, crop), channels-last in memory, colour shifts float32 (n, 3), and labels int64 (n,).
        The newest one is kept, so that a step can be captured with the batch that it begins with.
        """
        if self._newest is None or self._newest[0] != step:  # else it would start the workers anew
            self._newest = step, self._ahead.made(partial(self._make, step))
        return self._newest[1]

    def ready(self, raw: Raw) -> Batch:
        """Images float32 (n, 3, crop, crop) and labels, by operations of the device alone."""
        pictures, shift, labels = raw
        return finish(pictures, shift, self._mean), labels

    def batch(self, step: int) -> Batch:
        """Images float32 (n, 3, crop, crop), channels-last in memory, and labels int64 (n,), on the device."""
        return self.ready(self.raw(step))

    def close(self) -> None:
        """End the worker processes. A later batch starts new ones."""
        self._newest = None
        for stream in (self._cut, self._uncut):
            if stream is not None:
                stream.close()

    def _make(self, step: int) -> Raw:
        if self._uncut is not None:
            batch, shift = self._uncut.batch(step)
            try:
                return crops(batch, self._crop, self._device), *sent((shift, batch.labels), self._device)
            except DecodingError as error:
                self._tell(error)
        return sent(self._cut.batch(step), self._device)

    def _tell(self, error: DecodingError) -> None:
        """Tell the first time that the processor takes the GPU's place."""
        if not self._told:
            self._say(f"batches with a JPEG that the GPU does not decode are decoded by the processor ({error})")
        self._told = True
