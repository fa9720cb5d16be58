"""The rivals `torchvision` and `timm` in training: their networks as users run them, in fp32, eager, NCHW."""

from torch import nn

from deepres.bench.inference import timm_net, torchvision_net
from deepres.bench.inputs import on_a_batch
from deepres.bench.job import Contestant, Job
from deepres.bench.textbook import stock_step
from deepres.runtime.versions import version


def torchvision(job: Job) -> Contestant:
    """A training step of torchvision's network on a batch in memory."""
    return _step(torchvision_net(job), job, "torchvision")


def timm(job: Job) -> Contestant:
    """A training step of timm's network on a batch in memory."""
    return _step(timm_net(job), job, "timm")


def _step(net: nn.Module, job: Job, package: str) -> Contestant:
    step = stock_step(net.train().to(job.device))
    return Contestant(on_a_batch(job, step), f"{package} {version(package)}, fp32 eager, NCHW")
