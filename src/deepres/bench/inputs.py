"""The inputs that all contestants of a job share: the data of an epoch, a batch in memory, the network."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from deepres.bench.job import Job
from deepres.data.resident import Data, ImageSet
from deepres.data.sources import load_data_set
from deepres.models.catalog import build, family, input_size
from deepres.models.network import Network
from deepres.runtime.errors import InputError


def data_of(job: Job) -> Data:
    """The first `part` of the training images and of the test images.

    Raises `InputError` for images that the rivals do not take: they are written for CIFAR-10.
    """
    whole = load_data_set(job.data)
    if whole.channels != 3 or whole.size != (32, 32) or len(whole.classes) > 10:
        raise InputError(f"{job.data} is not colour images of 32 pixels in ten classes at most; give such as cifar10")
    return dataclasses.replace(whole, train=_first(whole.train, job.part), test=_first(whole.test, job.part))


def _first(images: ImageSet, part: float) -> ImageSet:
    count = max(1, round(part * len(images)))
    return dataclasses.replace(images, images=images.images[:count], labels=images.labels[:count])


def batch_of(job: Job) -> tuple[Tensor, Tensor]:
    """Random images (N, 3, H, W) from a standard normal distribution, and random labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    size = input_size(job.network)
    classes = 10 if size == 32 else 1000
    images = torch.randn(job.batch_size, 3, size, size, generator=generator)
    return images, torch.randint(classes, (job.batch_size,), generator=generator)


def on_a_batch(job: Job, step: Callable[[Tensor, Tensor], object]) -> Callable[[], int]:
    """A turn that calls `step` with a batch in memory and returns its number of images."""
    images, labels = batch_of(job)

    def turn() -> int:
        step(images, labels)
        return len(images)

    return turn


def our_network(job: Job) -> Network:
    """Our network. If torchvision has it, its stride is on the 3x3, as torchvision's: both then do the same work."""
    try:
        torchvision_name(job)
    except InputError:
        return build(job.network)
    return build(job.network, stride_on="3x3")


def torchvision_name(job: Job) -> str:
    """The network's name in torchvision and timm. Raises `InputError` where they do not have it."""
    name = job.network.removesuffix("-b")
    if family(job.network) == "cifar" or not name.startswith("resnet") or "-" in name:
        raise InputError(f"torchvision and timm take part in resnet18 to resnet152 alone, not in {job.network}")
    return name
