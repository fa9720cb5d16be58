"""The dense test of Sec. 3.4 at its five scales, and each crop that a position of it stands for, by itself."""

import torch
from torch import Tensor

from deepres.bench.job import Contestant, Job
from deepres.classification.views import CROP, Protocol, Views, dense, score_views
from deepres.models.catalog import build
from deepres.models.convolutional import fully_convolutional
from deepres.models.network import Network
from deepres.runtime.device import autocast

HEIGHT, WIDTH, STRIDE = 375, 500, 32  # the middle size of ImageNet's pictures; pixels from a position to the next
PIXELS = 32 * CROP * CROP


def ours(job: Job) -> Contestant:
    """The network made fully convolutional, on whole pictures and their flips."""
    views, net = Protocol("dense").views(CROP), _net(job)
    return _scores(job, fully_convolutional(net, CROP), views, f"{job.precision} eager, fully convolutional")


def crops(job: Job) -> Contestant:
    """The crops of the same pictures at the same scales, a stride of the network apart, and their flips."""
    sizes = Protocol("dense").sizes(CROP)

    def views(image: Tensor) -> list[Tensor]:
        seen = dense(image, sizes, flip=True)
        return [crop for view in seen for crop in _every_crop(view)]

    count = len(views(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)))
    return _scores(job, _net(job), views, f"{job.precision} eager, {count} crops of a picture, batches of 32")


def _every_crop(view: Tensor) -> list[Tensor]:
    down, across = (range(0, length - CROP + 1, STRIDE) for length in view.shape[-2:])
    return [view[:, row : row + CROP, column : column + CROP] for row in down for column in across]


def _net(job: Job) -> Network:
    torch.manual_seed(0)
    return build(job.network).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _scores(job: Job, net: torch.nn.Module, views: Views, setting: str) -> Contestant:
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
