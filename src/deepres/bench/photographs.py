"""Training at 224 pixels from a folder of pictures: ours, and the reference loop of torchvision."""

import time
from importlib import metadata
from itertools import cycle

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from deepres.bench.inference import torchvision_net
from deepres.bench.job import Contestant, Job
from deepres.bench.ours import make_step
from deepres.bench.pictures import CROP, DEVIATION, MEAN, files_of, stream
from deepres.runtime.errors import InputError

WORKERS = 2


def ours(job: Job) -> Contestant:
    """The stream of the recipe `imagenet`, decoding in worker processes, and its step."""
    source, count = stream(job, WORKERS)
    steps, waited = max(1, count // job.batch_size), [0.0]
    first, _ = source.batch(0)
    step, runs_on = make_step(job, first)
    done = [0]

    def turn() -> int:
        waited[0] = 0.0
        for _ in range(steps):
            start = time.perf_counter()
            images, labels = source.batch(done[0])
            waited[0] += time.perf_counter() - start
            step(images, labels)
            done[0] += 1
        return steps * job.batch_size

    setting = f"the stream with {WORKERS} workers, {runs_on}"
    return Contestant(turn, setting, figures=lambda: {"waited": waited[0]})


def torchvision(job: Job) -> Contestant:
    """As torchvision's references/classification: PIL, RandomResizedCrop and flip, DataLoader, fp32 eager, NCHW."""
    index, count = files_of(job)
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(CROP),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, DEVIATION),
        ]
    )
    folder = ImageFolder((index.root / index.files[0]).parents[1], transform)
    if len(folder) < job.batch_size:  # its loader drops the rest of an epoch, which would be all
        raise InputError(f"{job.data} has {len(folder)} training pictures, fewer than --batch-size {job.batch_size}")
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        folder, job.batch_size, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )
    net = torchvision_net(job).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    criterion, batches = nn.CrossEntropyLoss(), (batch for epoch in cycle([loader]) for batch in epoch)
    steps = max(1, count // job.batch_size)

    def turn() -> int:
        for _ in range(steps):
            images, labels = next(batches)
            scores = net(images)
            loss = criterion(scores, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            scores.topk(5)
        return steps * job.batch_size

    return Contestant(turn, f"torchvision {metadata.version('torchvision')}, PIL, {WORKERS} workers, fp32 eager, NCHW")
