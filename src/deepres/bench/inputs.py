"""What all contestants of a job start from: the data of an epoch, a batch in memory, the network."""

import dataclasses

import torch
from torch import Tensor

from deepres.bench.job import Job
from deepres.data.resident import Data, ImageSet
from deepres.data.sources import load_data_set
from deepres.models.catalog import build, family, input_size
from deepres.models.network import Network
from deepres.runtime.errors import InputError


def data_of(job: Job) -> Data:
    """The first `part` of the training and of the test images.

    Raises `InputError` for images that the rivals' loops and networks, which are those for CIFAR-10, do not take.
    """
    whole = load_data_set(job.data)
    if whole.channels != 3 or whole.size != (32, 32) or len(whole.classes) > 10:
        raise InputError(f"{job.data} is not colour images of 32 pixels in ten classes at most; give such as cifar10")
    return dataclasses.replace(whole, train=_first(whole.train, job.part), test=_first(whole.test, job.part))


def _first(images: ImageSet, part: float) -> ImageSet:
    count = max(1, round(part * len(images)))
    return dataclasses.replace(images, images=images.images[:count], labels=images.labels[:count])


def batch_of(job: Job) -> tuple[Tensor, Tensor]:
    """Random images (N, 3, H, W), about as bright as normalised ones, and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    size = input_size(job.network)
    classes = 10 if size == 32 else 1000
    images = torch.randn(job.batch_size, 3, size, size, generator=generator)
    return images, torch.randint(classes, (job.batch_size,), generator=generator)


def our_network(job: Job) -> Network:
    """Ours, its stride where torchvision has it, if torchvision has the network: both sides then do the same work."""
    try:
        torchvision_name(job)
    except InputError:
        return build(job.network)
    return build(job.network, stride_on="3x3")


def torchvision_name(job: Job) -> str:
    """The network's name in torchvision and timm. Raises `InputError` where they do not take part."""
    name = job.network.removesuffix("-b")
    if family(job.network) == "cifar" or not name.startswith("resnet") or "-" in name:
        raise InputError(f"torchvision and timm take part in resnet18 to resnet152 alone, not in {job.network}")
    return name
