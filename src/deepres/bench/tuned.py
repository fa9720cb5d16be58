"""The rival `tuned`: stock PyTorch with all that an expert switches on, in its fastest setting on this machine.

bf16 autocast where the processor multiplies bf16, channels-last, `torch.compile`, persistent workers on tensors.
"""

import itertools
import timeit
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from deepres.bench.inputs import batch_of, data_of, on_a_batch, our_network
from deepres.bench.job import Contestant, Job, is_epoch
from deepres.bench.textbook import DEVIATION, MEAN
from deepres.classification.loss import classification_loss
from deepres.data.resident import ImageSet
from deepres.runtime.device import autocast, resolve_precision

WARM_UP, PROBES = 2, 5
NORMALISE = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
AUGMENT = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]


class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    """uint8 images (N, 3, H, W) in memory, transformed one by one."""

    def __init__(self, images: ImageSet, transform: Callable[[Tensor], Tensor]):
        self.images, self.labels, self.transform = images.images, images.labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def _loader(images: ImageSet, job: Job, training: bool) -> DataLoader[tuple[Tensor, Tensor]]:
    transform = v2.Compose([*AUGMENT, *NORMALISE] if training else NORMALISE)
    dataset = TensorImages(images, transform)
    return DataLoader(dataset, job.batch_size, shuffle=training, num_workers=2, persistent_workers=True)


class Candidate:
    """A network in one setting, with its training step; `forward` is the network, compiled or not."""

    def __init__(self, net: nn.Module, precision: str, compiled: bool):
        self.net = net.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.forward = torch.compile(self.net) if compiled else self.net
        self.optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, foreach=True)
        self.precision = precision
        self.setting = f"{precision}, channels-last, {'torch.compile' if compiled else 'eager'}"

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One training step; the loss is returned as a tensor, without waiting for it."""
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, "cpu"):
            _, loss = classification_loss(self.forward(images), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def seconds(self, images: Tensor, labels: Tensor) -> float:
        """The median time of a step, in seconds, after some steps of warm-up."""
        for _ in range(WARM_UP):
            self.step(images, labels)
        return median(timeit.repeat(lambda: self.step(images, labels), number=1, repeat=PROBES))


def best(job: Job) -> tuple[Candidate, dict[str, float | str]]:
    """The candidate with the fastest step on this machine, and the seconds of every setting."""
    precisions = ["fp32", "bf16"] if resolve_precision("auto", "cpu") == "bf16" else ["fp32"]
    settings = itertools.product(precisions, [False, True] if job.compile else [False])
    tried = [Candidate(our_network(job), precision, compiled) for precision, compiled in settings]
    batch = batch_of(job)
    seconds = [each.seconds(*batch) for each in tried]
    facts: dict[str, float | str] = {each.setting: time_ for each, time_ in zip(tried, seconds, strict=True)}
    return tried[seconds.index(min(seconds))], facts


def train(job: Job) -> Contestant:
    """An epoch with the test after it, or a step on a batch in memory."""
    chosen, facts = best(job)
    if not is_epoch(job):
        return Contestant(on_a_batch(job, chosen.step), chosen.setting, facts)
    data = data_of(job)
    training, testing = _loader(data.train, job, True), _loader(data.test, job, False)

    def epoch() -> int:
        chosen.net.train()
        losses = [chosen.step(images, labels) for images, labels in training]
        torch.stack(losses).mean().item()
        chosen.net.eval()
        with torch.no_grad(), autocast(chosen.precision, "cpu"):
            wrong = [(chosen.net(images).argmax(1) != labels).sum() for images, labels in testing]
        torch.stack(wrong).sum().item()
        return len(data.train)

    return Contestant(epoch, f"{chosen.setting}, persistent workers, v2 transforms on tensors", facts)


def load_batches(job: Job) -> Contestant:
    """The batches of an epoch."""
    training = _loader(data_of(job).train, job, True)
    setting = "v2 transforms on tensors, DataLoader with 2 persistent workers"
    return Contestant(lambda: sum(len(labels) for _, labels in training), setting)
