"""Batch statistics over groups of images: the paper's two GPUs saw 64 images of 128 each (Sec. 4.2)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
