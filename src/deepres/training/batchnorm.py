"""Batch statistics over groups of images: the paper's two GPUs saw 64 images of 128 each (Sec. 4.2)."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.training.freeze import set_training


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization whose training statistics are taken over `group` images at a time.

    Each group moves the running statistics by so much that all groups of a full batch together move them as
    far as one whole batch would.
    """

    group: int = 0

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; the last group is smaller where `group` does not divide N."""
        if not self.training or len(input) <= self.group:
            return super().forward(input)
        chunks = input.split(self.group)
        share = 1 - (1 - (0.1 if self.momentum is None else self.momentum)) ** (1 / len(chunks))
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return torch.cat([self._normalize(chunk, share) for chunk in chunks])

    def _normalize(self, chunk: Tensor, momentum: float) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(chunk, mean, var, self.weight, self.bias, True, momentum, self.eps)


def group_batch_norm(net: nn.Module, group: int) -> None:
    """Make every batch normalization of `net` take its statistics over `group` images; 0 changes nothing."""
    if group:
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = GroupedBatchNorm2d
                cast(GroupedBatchNorm2d, module).group = group


def smallest_map(net: nn.Module, images: Tensor) -> float:
    """Positions of the smallest map of `images` (N, C, H, W) that a layer of `net` takes batch statistics of.

    Infinite where none does. The net is put into training mode, but for what is frozen; it may be on the device meta.
    """
    set_training(net)
    found = [math.inf]
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d) and layer.training]
    handles = [
        layer.register_forward_pre_hook(lambda _, given: found.append(given[0].shape[2:].numel())) for layer in layers
    ]
    try:
        net(images)
    finally:
        for handle in handles:
            handle.remove()
    return min(found)
