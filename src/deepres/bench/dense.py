"""The dense test of Sec. 3.4 at its five scales, against scoring the same crops one by one."""

import torch
from torch import Tensor

from deepres.bench.job import Contestant, Job
from deepres.classification.views import CROP, Protocol, Views, dense, score_views
from deepres.models.catalog import build
from deepres.models.convolutional import fully_convolutional
from deepres.models.network import Network
from deepres.runtime.device import autocast

HEIGHT, WIDTH, STRIDE = 375, 500, 32  # ImageNet's most usual picture size; pixels from one position to the next
PIXELS = 32 * CROP * CROP  # of a batch


def ours(job: Job) -> Contestant:
    """The fully convolutional form of the network on whole pictures and their flips."""
    views, net = Protocol("dense").views(CROP), _net(job)
    return _scores(job, fully_convolutional(net, CROP), views, f"{job.precision} eager, fully convolutional")


def crops(job: Job) -> Contestant:
    """The network on crops of the same pictures and flips at the same scales, 32 pixels (its stride) apart."""
    sizes = Protocol("dense").sizes(CROP)

    def views(image: Tensor) -> list[Tensor]:
        seen = dense(image, sizes, flip=True)
        return [crop for view in seen for crop in _every_crop(view)]

    count = len(views(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)))
    return _scores(job, _net(job), views, f"{job.precision} eager, {count} crops of a picture, batches of 32")


def _every_crop(view: Tensor) -> list[Tensor]:
    """The crops (3, 224, 224) of a view (3, H, W) at every position."""
    down, across = (range(0, length - CROP + 1, STRIDE) for length in view.shape[-2:])
    return [view[:, row : row + CROP, column : column + CROP] for row in down for column in across]


def _net(job: Job) -> Network:
    torch.manual_seed(0)
    return build(job.network).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _scores(job: Job, net: torch.nn.Module, views: Views, setting: str) -> Contestant:
    """A contestant that scores random pictures by their `views`."""
    random = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=random) for _ in range(job.batch_size)
    ]

    def prepare(batch: Tensor) -> Tensor:
        return batch.contiguous(memory_format=torch.channels_last).float() / 255 - 0.5

    def turn() -> int:
        with autocast(job.precision, "cpu"):
            return len(score_views(net, images, views, prepare, PIXELS))

    return Contestant(turn, setting)
