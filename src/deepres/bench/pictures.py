"""Training batches of 224-pixel crops from JPEG files, on one core: ours, torchvision's pipelines, bare decoding.

All read the same training pictures in turn: shorter side from 256 to 480, crop, flip, colour shift, normalised floats.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import io
from torchvision.transforms import v2

from deepres.bench.job import Contestant, Job
from deepres.classification.recipe import IMAGENET
from deepres.data.augment import channels_last
from deepres.data.crops import DRAWS, finish, scale_crop_flip
from deepres.data.order import Order
from deepres.data.stream.index import Index, open_index
from deepres.data.stream.labelled import Batch, labelled, on_device
from deepres.data.stream.loader import Reading, Stream
from deepres.data.stream.statistics import statistics
from deepres.runtime.device import keep_freed_memory
from deepres.runtime.errors import InputError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AXES = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
SCALES = torch.tensor([0.2175, 0.0188, 0.0045])  # popular code's eigenvectors and eigenvalues of ImageNet's colours
CROP, SIDES = IMAGENET.crop, list(range(IMAGENET.sides[0], IMAGENET.sides[1] + 1))


def ours(job: Job) -> Contestant:
    """The stream of the recipe `imagenet`, decoding in this process."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as a training run does
    source, count = stream(job, workers=0)
    steps, done = max(1, count // job.batch_size), iter(range(2**60))

    def turn() -> int:
        for step in islice(done, steps):
            source.batch(step)
        return steps * job.batch_size

    return Contestant(turn, "the stream, one process, one thread")


def stream(job: Job, workers: int) -> tuple[Stream[Batch], int]:
    """The training batches of the recipe `imagenet`, and how many pictures a turn takes."""
    index, count = files_of(job)
    found = statistics(index, reading=Reading(workers=2))
    ready = partial(finish, mean=channels_last(found.mean), values=found.values, vectors=found.vectors)
    augment = partial(scale_crop_flip, crop=CROP, sides=(SIDES[0], SIDES[-1]))
    finished = on_device(ready, torch.device("cpu"))
    return Stream(labelled(index, augment, DRAWS), finished, Order(0, job.batch_size), Reading(workers)), count


def pil(job: Job) -> Contestant:
    """torchvision's transforms on PIL images."""
    transform = v2.Compose(
        [
            v2.RandomShortestSize(SIDES),
            v2.RandomCrop(CROP),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            _shift_colours,
            v2.Normalize(MEAN, DEVIATION),
        ]
    )

    def load(file: Path) -> Tensor:
        with Image.open(file) as image:
            return transform(image.convert("RGB"))

    return _one_by_one(job, load, "PIL and torchvision's v2 transforms, one process, one thread")


def tensor(job: Job) -> Contestant:
    """`decode_image` and torchvision's transforms on tensors."""
    transform = v2.Compose(
        [
            v2.RandomShortestSize(SIDES, antialias=True),
            v2.RandomCrop(CROP),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            _shift_colours,
            v2.Normalize(MEAN, DEVIATION),
        ]
    )
    load: Callable[[Path], Tensor] = lambda file: transform(io.decode_image(str(file), io.ImageReadMode.RGB))  # noqa: E731
    return _one_by_one(job, load, "decode_image and torchvision's v2 transforms on tensors, one process, one thread")


def decode(job: Job) -> Contestant:
    """Nothing but decoding, which whoever wants all pixels needs."""
    index, count = files_of(job)
    torch.set_num_threads(1)
    files = _files(index)

    def turn() -> int:
        for file in islice(files, count):
            io.decode_image(str(file), io.ImageReadMode.RGB)
        return count

    return Contestant(turn, "decode_image alone, one thread")


def _shift_colours(image: Tensor) -> Tensor:
    return image + (AXES @ (0.1 * torch.randn(3) * SCALES))[:, None, None]


def _one_by_one(job: Job, load: Callable[[Path], Tensor], setting: str) -> Contestant:
    index, count = files_of(job)
    torch.set_num_threads(1)
    files, steps = _files(index), max(1, count // job.batch_size)

    def turn() -> int:
        for _ in range(steps):
            torch.stack([load(file) for file in islice(files, job.batch_size)])
        return steps * job.batch_size

    return Contestant(turn, setting)


def files_of(job: Job) -> tuple[Index, int]:
    """The training pictures, and how many a turn takes."""
    index = open_index(job.data, lambda message: None).train
    if int(index.size.max()) >= 0:
        raise InputError(f"the bench reads pictures that are files of their own; {job.data} has them packed")
    return index, max(1, round(job.part * len(index)))


def _files(index: Index) -> Iterator[Path]:
    """The files in a random order, again and again."""
    order = np.random.default_rng(0).permutation(len(index))
    return cycle([index.root / index.files[int(index.file[place])] for place in order])
