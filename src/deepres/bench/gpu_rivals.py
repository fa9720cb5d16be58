"""The rivals `textbook` and `tuned` on a GPU: the whole data set, or one batch, lies in its memory."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.bench.inputs import batch_of, data_of, many, on_a_batch, our_network
from deepres.bench.job import Contestant, Job, is_resident
from deepres.bench.textbook import DEVIATION, MEAN, accuracy, stock_step

PAD, SIDE = 4, 32


class Batches:
    """Augmented batches of the images of a job, cut, flipped and normalised by the device.

    `advance` chooses the images of the next batch. `batch` makes it, and may be captured as a part of a CUDA graph.
    """

    def __init__(self, job: Job):
        images, device = data_of(job).train, torch.device(job.device)
        padded = F.pad(images.images, (PAD, PAD, PAD, PAD))
        self.pixels = padded.permute(0, 2, 3, 1).contiguous().to(device)
        self.labels, self.size, self.device = images.labels.to(device), job.batch_size, device
        self.mean, self.deviation = (torch.tensor(values, device=device) * 255 for values in (MEAN, DEVIATION))
        self.along = torch.arange(SIDE, device=device)[None]
        self.order, self.place = torch.randperm(len(self.labels), device=device), 0
        self.chosen = self.order[: self.size].clone()

    def advance(self) -> None:
        """Choose the next batch; a new epoch has a new order, and drops an incomplete last batch."""
        if self.place + self.size > len(self.order):
            self.order, self.place = torch.randperm(len(self.labels), device=self.device), 0
        self.chosen.copy_(self.order[self.place : self.place + self.size])
        self.place += self.size

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images float32 (N, 3, 32, 32), channels-last in memory, and labels (N,)."""
        tops, lefts, flips = (torch.randint(most, (self.size, 1), device=self.device) for most in (9, 9, 2))
        rows = self.along + tops
        columns = torch.where(flips.bool(), SIDE - 1 - self.along, self.along) + lefts
        pixels = self.pixels[self.chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        return ((pixels - self.mean) / self.deviation).permute(0, 3, 1, 2), self.labels[self.chosen]


def textbook(job: Job) -> Contestant:
    """The plain loop in fp32 without its loader: `.item()` on the loss and the accuracy of every step."""
    take = stock_step(our_network(job).train().to(job.device))
    setting = "fp32 eager, NCHW, .item() a step, without its loader: images in the GPU's memory"

    def step(images: Tensor, labels: Tensor) -> None:
        accuracy(take(images.contiguous(), labels), labels)

    if not is_resident(job):
        return Contestant(on_a_batch(job, step), setting)
    batches = Batches(job)
    return Contestant(many(job, lambda: step(*_next(batches))), setting)


def _next(batches: Batches) -> tuple[Tensor, Tensor]:
    batches.advance()
    return batches.batch()


def source(job: Job) -> tuple[Callable[[], object], Callable[[], tuple[Tensor, Tensor]]]:
    """What is done before each step, and what gives the batch within it: of a data set, or of one batch in memory."""
    if is_resident(job):
        batches = Batches(job)
        return batches.advance, batches.batch
    images, labels = batch_of(job)
    images = images.contiguous(memory_format=torch.channels_last)
    return lambda: None, lambda: (images, labels)
