"""Training at 224 pixels from a folder of pictures: ours, and torchvision's reference loop."""

import time
from itertools import count, cycle, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from deepres.bench.inference import torchvision_net
from deepres.bench.job import Contestant, Job
from deepres.bench.ours import make_step
from deepres.bench.photograph_runs import run
from deepres.bench.pictures import CROP, DEVIATION, MEAN, files_of, stream
from deepres.bench.textbook import stock_step
from deepres.data.stream.loader import Reading, default_workers
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError
from deepres.runtime.versions import version

WORKERS = 2
AUGMENT = [v2.RandomResizedCrop(CROP), v2.RandomHorizontalFlip()]
NORMALISE = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]


def ours(job: Job) -> Contestant:
    """Our stream with the recipe `imagenet`, which decodes in worker processes, and our training step."""
    if job.device == "cuda":
        return run(job, "cpu")
    source, images_a_turn = stream(job, Reading(WORKERS))
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


def nvjpeg(job: Job) -> Contestant:
    """Our training on a GPU that decodes most JPEG files itself."""
    return run(job, "gpu")


def torchvision(job: Job) -> Contestant:
    """The loop of torchvision's references/classification: PIL, random crop and flip, DataLoader, eager.

    On a processor it is in fp32 and NCHW. On a GPU it is in the precision of the job, in channels-last memory, with
    pinned memory and a worker for each processor.
    """
    # The pipeline of pictures, epoch after epoch.
    index, images_a_turn = files_of(job)
    on_gpu = job.device == "cuda"
    workers = default_workers() if on_gpu else WORKERS
    folder = ImageFolder((index.root / index.files[0]).parents[1], v2.Compose([*AUGMENT, v2.PILToTensor(), *NORMALISE]))
    if len(folder) < job.batch_size:  # its loader drops an incomplete batch, so that nothing would be left
        raise InputError(f"{job.data} has {len(folder)} training pictures, fewer than --batch-size {job.batch_size}")
    how: dict[str, Any] = {"shuffle": True, "drop_last": True, "persistent_workers": True, "pin_memory": on_gpu}
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(folder, job.batch_size, num_workers=workers, **how)
    batches = (batch for epoch in cycle([loader]) for batch in epoch)
    # Steps on its batches.
    layout = torch.channels_last if on_gpu else torch.contiguous_format
    step = stock_step(torchvision_net(job).train().to(job.device, memory_format=layout))  # pyright: ignore[reportCallIssue]
    steps = max(1, images_a_turn // job.batch_size)

    def turn() -> int:
        for images, labels in islice(batches, steps):
            images = images.to(job.device, memory_format=layout, non_blocking=True)
            with autocast(job.precision if on_gpu else "fp32", job.device):
                scores = step(images, labels.to(job.device, non_blocking=True))
            scores.topk(5)
        return steps * job.batch_size

    kind = f"{job.precision} eager, channels-last, pinned memory" if on_gpu else "fp32 eager, NCHW"
    return Contestant(turn, f"torchvision {version('torchvision')}, PIL, {workers} workers, {kind}")
