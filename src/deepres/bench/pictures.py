"""Training batches of 224-pixel crops from JPEG files on one core: ours, torchvision's pipelines, decoding alone.

All read the same training pictures: shorter side from 256 to 480, crop, flip, colour shift, normalized floats.
"""

from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import io
from torchvision.transforms import v2

from deepres.bench.job import Contestant, Job
from deepres.classification.recipe import IMAGENET
from deepres.data.order import Order
from deepres.data.stream.index import Index, open_index
from deepres.data.stream.loader import Reading
from deepres.data.stream.photographs import CropColour, Photographs
from deepres.data.stream.statistics import statistics
from deepres.runtime.device import keep_freed_memory
from deepres.runtime.errors import InputError, silent

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Eigenvectors and eigenvalues of ImageNet's colours, as popular code has them.
AXES = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
SCALES = torch.tensor([0.2175, 0.0188, 0.0045])
CROP, SIDES = IMAGENET.crop, list(range(IMAGENET.sides[0], IMAGENET.sides[1] + 1))


def _shift_colours(image: Tensor) -> Tensor:
    return image + (AXES @ (0.1 * torch.randn(3) * SCALES))[:, None, None]


AUGMENT = [v2.RandomShortestSize(SIDES), v2.RandomCrop(CROP), v2.RandomHorizontalFlip()]
FINISH = [v2.ToDtype(torch.float32, scale=True), _shift_colours, v2.Normalize(MEAN, DEVIATION)]


def ours(job: Job) -> Contestant:
    """Our stream with the recipe `imagenet`, which decodes in this process."""
    torch.set_num_threads(1)
    keep_freed_memory()  # like a training run
    source, images_a_turn = stream(job, Reading(workers=0))
    steps, numbers = max(1, images_a_turn // job.batch_size), count()

    def turn() -> int:
        for step in islice(numbers, steps):
            source.batch(step)
        return steps * job.batch_size

    return Contestant(turn, "the stream, one process, one thread")


def stream(job: Job, reading: Reading) -> tuple[Photographs, int]:
    """The training batches of the recipe `imagenet`, and the number of pictures of a turn."""
    index, images_a_turn = files_of(job)
    found = statistics(index, reading=Reading(workers=2))
    augmentation = CropColour(CROP, (SIDES[0], SIDES[-1]), found.mean, found.values, found.vectors)
    return Photographs(index, augmentation, Order(0, job.batch_size), reading, torch.device("cpu")), images_a_turn


def pil(job: Job) -> Contestant:
    """torchvision's transforms on PIL images."""
    transform = v2.Compose([*AUGMENT, v2.PILToTensor(), *FINISH])

    def load(file: Path) -> Tensor:
        with Image.open(file) as image:
            return transform(image.convert("RGB"))

    return _one_by_one(job, load, "PIL and torchvision's v2 transforms, one process, one thread")


def tensor(job: Job) -> Contestant:
    """`decode_image` and torchvision's transforms on tensors."""
    transform = v2.Compose([*AUGMENT, *FINISH])

    def load(file: Path) -> Tensor:
        return transform(io.decode_image(str(file), io.ImageReadMode.RGB))

    return _one_by_one(job, load, "decode_image and torchvision's v2 transforms on tensors, one process, one thread")


def decode(job: Job) -> Contestant:
    """Decoding alone, the least that a pipeline of whole pictures takes."""
    files, images_a_turn = _on_one_thread(job)

    def turn() -> int:
        for file in islice(files, images_a_turn):
            io.decode_image(str(file), io.ImageReadMode.RGB)
        return images_a_turn

    return Contestant(turn, "decode_image alone, one thread")


def _one_by_one(job: Job, load: Callable[[Path], Tensor], setting: str) -> Contestant:
    """A contestant that loads each picture of a batch by itself and stacks them."""
    files, images_a_turn = _on_one_thread(job)
    steps = max(1, images_a_turn // job.batch_size)

    def turn() -> int:
        for _ in range(steps):
            torch.stack([load(file) for file in islice(files, job.batch_size)])
        return steps * job.batch_size

    return Contestant(turn, setting)


def files_of(job: Job) -> tuple[Index, int]:
    """The training pictures, and the number of pictures of a turn."""
    index = open_index(job.data, silent).train
    if int(index.size.max()) >= 0:
        raise InputError(f"the bench reads pictures that are files of their own; {job.data} has them packed")
    return index, max(1, round(job.part * len(index)))


def _on_one_thread(job: Job) -> tuple[Iterator[Path], int]:
    """The files in one random order, over and over, and how many are of a turn. PyTorch then has one thread."""
    torch.set_num_threads(1)
    index, images_a_turn = files_of(job)
    order = np.random.default_rng(0).permutation(len(index))
    return cycle([index.root / index.files[int(index.file[place])] for place in order]), images_a_turn
