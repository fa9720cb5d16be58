"""Training at 224 pixels from a folder of pictures: ours, and torchvision's reference loop."""

import time
from itertools import count, cycle, islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from deepres.bench.inference import torchvision_net
from deepres.bench.job import Contestant, Job
from deepres.bench.ours import make_step
from deepres.bench.pictures import CROP, DEVIATION, MEAN, files_of, stream
from deepres.bench.textbook import stock_step
from deepres.data.stream.loader import Reading
from deepres.runtime.errors import InputError
from deepres.runtime.versions import version

WORKERS = 2
AUGMENT = [v2.RandomResizedCrop(CROP), v2.RandomHorizontalFlip()]
NORMALISE = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]


def ours(job: Job) -> Contestant:
    """Our stream with the recipe `imagenet`, which decodes in worker processes, and our training step."""
    source, images_a_turn = stream(job, Reading(WORKERS), torch.device("cpu"))
    steps, numbers, waited = max(1, images_a_turn // job.batch_size), count(), [0.0]
    first, _ = source.batch(0)
    step, runs_on = make_step(job, first)

    def turn() -> int:
        waited[0] = 0.0
        for number in islice(numbers, steps):
            start = time.perf_counter()
            images, labels = source.batch(number)
            waited[0] += time.perf_counter() - start
            step(images, labels)
        return steps * job.batch_size

    return Contestant(turn, f"the stream with {WORKERS} workers, {runs_on}", figures=lambda: {"waited": waited[0]})


def torchvision(job: Job) -> Contestant:
    """The loop of torchvision's references/classification: PIL, random crop and flip, DataLoader, fp32, eager, NCHW."""
    # The pipeline of pictures.
    index, images_a_turn = files_of(job)
    transform = v2.Compose([*AUGMENT, v2.PILToTensor(), *NORMALISE])
    folder = ImageFolder((index.root / index.files[0]).parents[1], transform)
    if len(folder) < job.batch_size:  # its loader drops an incomplete batch, so that nothing would be left
        raise InputError(f"{job.data} has {len(folder)} training pictures, fewer than --batch-size {job.batch_size}")
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        folder, job.batch_size, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )
    # Steps on its batches, epoch after epoch.
    step = stock_step(torchvision_net(job).train())
    batches = (batch for epoch in cycle([loader]) for batch in epoch)
    steps = max(1, images_a_turn // job.batch_size)

    def turn() -> int:
        for images, labels in islice(batches, steps):
            step(images, labels).topk(5)
        return steps * job.batch_size

    return Contestant(turn, f"torchvision {version('torchvision')}, PIL, {WORKERS} workers, fp32 eager, NCHW")
