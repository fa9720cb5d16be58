"""A CIFAR network's backbone and pooling as one operation: images to averages, and its backward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepres.kernels.triton import backward_pass, forward_pass
from deepres.kernels.triton.chain import Backbone, Maps, Scratch


def pooled(backbone: Backbone, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images (N, channels, H, W) to the averages (N, C) of the last map, float32; maps are kept in `dtype`.

    The running statistics are updated. Every gradient but that of the images can be taken, once differentiable.
    """
    return _Pooled.apply(backbone, images, dtype, *backbone.parameters())


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backbone: Backbone, images: Tensor, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        maps, ctx.scratch = Maps.room(backbone, images, dtype), Scratch.room(images)
        ctx.backbone = backbone
        ctx.sizes = [(stage.height, stage.width) for stage in maps]
        kept = [tensor for stage in maps for tensor in (stage.z, stage.x, stage.statistics)]
        ctx.save_for_backward(images, *kept, *parameters)
        return forward_pass.run(backbone, images, maps, ctx.scratch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, *kept = ctx.saved_tensors
        maps = [Maps(*size, *kept[3 * at : 3 * at + 3]) for at, size in enumerate(ctx.sizes)]
        return (None, None, None, *backward_pass.run(ctx.backbone, images, maps, ctx.scratch, grad.contiguous()))
