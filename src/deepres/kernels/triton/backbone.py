"""A CIFAR network's backbone and pooling as one operation: images to averages, and its backward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepres.kernels.triton import backward_pass, forward_pass
from deepres.kernels.triton.chain import Backbone, Maps, Sums, packed


def pooled(backbone: Backbone, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images (N, channels, H, W) to the averages (N, C) of the last map, float32; maps are kept in `dtype`.

    The running statistics are updated. Every gradient but that of the images can be taken, once.
    """
    return _Pooled.apply(backbone, images, dtype, *backbone.parameters())


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backbone: Backbone, images: Tensor, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        maps = Maps.room(backbone, images, dtype)
        sums, kernels = Sums.room(maps), packed(backbone, images, dtype)
        ctx.backbone, ctx.maps, ctx.sums, ctx.kernels = backbone, maps, sums, kernels
        ctx.save_for_backward(images, *parameters)
        return forward_pass.run(backbone, images, maps, sums, kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        images, *_ = ctx.saved_tensors
        if ctx.sums is None:
            raise RuntimeError("the gradients of this pass have been taken already; run it forward again")
        found = backward_pass.run(ctx.backbone, images, ctx.maps, ctx.sums, ctx.kernels, grads[0].contiguous())
        ctx.maps = ctx.sums = ctx.kernels = None
        return (None, None, None, *found)
