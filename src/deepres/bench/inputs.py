"""The inputs that all contestants of a job share: the data of an epoch, a batch in memory, the network."""

import dataclasses
import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor

from deepres.bench.job import Job
from deepres.data.resident import Data, ImageSet
from deepres.data.sources import load_data_set
from deepres.models.catalog import build, family, input_size
from deepres.models.network import Network
from deepres.models.registry import DETECTOR
from deepres.runtime.errors import InputError

TURN_SECONDS = 1.0  # about how long a turn on a GPU repeats a step


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
    labels = torch.randint(classes, (job.batch_size,), generator=generator)
    return images.to(job.device), labels.to(job.device)


def on_a_batch(job: Job, step: Callable[[Tensor, Tensor], object]) -> Callable[[], int]:
    """A turn that calls `step` with a batch in memory and returns its number of images; on a GPU, many times."""
    images, labels = batch_of(job)
    return many(job, lambda: step(images, labels))


def many(job: Job, step: Callable[[], object]) -> Callable[[], int]:
    """A turn that calls `step` once, or on a GPU as often as fills `TURN_SECONDS`; it returns the number of images."""
    if job.device == "cpu":
        count = 1
    else:
        seconds = min(seconds_of(job, step) for _ in range(3))  # the first one sets up and chooses algorithms
        count = max(1, round(TURN_SECONDS / seconds))

    def turn() -> int:
        for _ in range(count):
            step()
        return count * job.batch_size

    return turn


def seconds_of(job: Job, run: Callable[[], object]) -> float:
    """The time of a call until the device has done its work."""
    synchronize(job.device)
    start = time.perf_counter()
    run()
    synchronize(job.device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()


def release(device: str) -> None:
    """Give memory of the GPU that is free, but kept by this process, back to the others."""
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def our_network(job: Job) -> Network:
    """Our network. If torchvision has it, its stride is on the 3x3, as torchvision's: both then do the same work."""
    try:
        torchvision_name(job)
    except InputError:
        return build(job.network)
    return build(job.network, stride_on="3x3")


def torchvision_name(job: Job) -> str:
    """The network's name in torchvision and timm. Raises `InputError` where they do not have it."""
    name = job.network.removeprefix(DETECTOR).removesuffix("-b")
    if family(job.network) == "cifar" or not name.startswith("resnet") or "-" in name:
        raise InputError(f"torchvision and timm take part in resnet18 to resnet152 alone, not in {job.network}")
    return name
