"""The rivals `torchvision` and `timm` in training: their networks as their users run them, fp32, eager, NCHW."""

from importlib import metadata

import torch
from torch import nn

from deepres.bench.inference import timm_net, torchvision_net
from deepres.bench.inputs import batch_of
from deepres.bench.job import Contestant, Job


def torchvision(job: Job) -> Contestant:
    """A step of torchvision's network."""
    return _step(torchvision_net(job), job, "torchvision")


def timm(job: Job) -> Contestant:
    """A step of timm's network."""
    return _step(timm_net(job), job, "timm")


def _step(net: nn.Module, job: Job, package: str) -> Contestant:
    images, labels = batch_of(job)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()

    def step() -> int:
        loss = criterion(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        return len(images)

    return Contestant(step, f"{package} {metadata.version(package)}, fp32 eager, NCHW")
