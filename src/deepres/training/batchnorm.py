"""Batch normalization over groups of images: the paper's two GPUs held 64 images of each batch of 128 (Sec. 4.2)."""

import math
from collections.abc import Generator
from contextlib import ExitStack
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from deepres.runtime.errors import Say
from deepres.runtime.progress import every_so_often
from deepres.runtime.ranks import Ranks
from deepres.training.freeze import set_training
from deepres.training.recipe import Recipe
from deepres.training.stop import stops
from deepres.training.task import AnyTask


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization whose training statistics are taken over `group` images at a time.

    The momentum of a group is smaller than that of a batch: all groups of a full batch together move the running
    statistics as far as one whole batch would.
    """

    group: int = 0

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, H, W), which keeps its shape. The last group is smaller where `group` does not divide N."""
        if not self.training or len(input) <= self.group:
            return super().forward(input)
        # The running statistics move a smaller step with each of several groups.
        chunks = input.split(self.group)
        share = 1 - (1 - (0.1 if self.momentum is None else self.momentum)) ** (1 / len(chunks))
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        # Each group is normalized by its own mean and variance.
        values = (self.running_mean, self.running_var, self.weight, self.bias, True, share, self.eps)
        return torch.cat([F.batch_norm(chunk, *values) for chunk in chunks])


def group_batch_norm(net: nn.Module, group: int) -> None:
    """Make all batch normalization of `net` take its training statistics over `group` images; 0 changes nothing."""
    if group:
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = GroupedBatchNorm2d
                cast(GroupedBatchNorm2d, module).group = group


def smallest_map(net: nn.Module, images: Tensor) -> float:
    """The size in positions (height x width) of the smallest map that `net` takes batch statistics of.

    `images` (N, C, H, W) go through the network once, which may be on the device meta. It is left in training mode,
    except for its frozen layers. The answer is infinite where no layer takes batch statistics.
    """
    set_training(net)
    found = [math.inf]
    with ExitStack() as hooks:
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.training:
                hook = layer.register_forward_pre_hook(lambda _, given: found.append(given[0].shape[2:].numel()))
                hooks.enter_context(hook)
        net(images)
    return min(found)


def average_statistics(net: nn.Module, recipe: Recipe, task: AnyTask, ranks: Ranks, say: Say) -> None:
    """Replace the running statistics of `net` by a plain average over training images, if the recipe asks for it.

    The images are the batches that would follow the last step, augmented. Sec. 3.4 does not mention the average, but
    the authors' release does. The images go through the network in groups of the same size as in training. Each rank
    averages over its own images.
    """
    steps = -(-recipe.bn_average // recipe.batch_size)
    # The images that one batch statistic was taken over in training.
    size = recipe.bn_group or recipe.batch_size // recipe.accumulate // ranks.world
    tick = every_so_often(say, "batches seen for the statistics of batch normalization")

    def parts() -> Generator[Tensor]:
        for step in range(recipe.iterations, recipe.iterations + steps):
            tick(step - recipe.iterations, steps)
            yield from task.images(task.batch_at(step)).split(size)

    if steps:
        # Compiled blocks would be compiled again for the momentum None, which `update_bn` sets.
        with stops.waiting(ranks.world == 1), torch.compiler.set_stance("force_eager"):
            update_bn(parts(), net)
