"""Regions of a map pooled by the maximum, by all threads and channels-last: torchvision's `roi_pool` on a processor.

torchvision's own takes one thread, one channel after another, in float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepres.kernels.library import CHANNELS, address, library
from deepres.kernels.pool import POOL


def fits(maps: Tensor, regions: Tensor) -> bool:
    """Whether the kernels can pool `regions` of `maps`: on a CPU, float32 or bf16, and at least one region."""
    known = maps.dtype in (torch.float32, torch.bfloat16) and maps.shape[1] % CHANNELS == 0
    return maps.device.type == "cpu" and known and len(regions) > 0


def pool_regions(maps: Tensor, regions: Tensor, size: int, scale: float) -> Tensor:
    """`torchvision.ops.roi_pool`, with its values: maps (N, C, h, w) and `regions` float32 (R, 5), an image's number
    and its box, to (R, C, size, size) in the type of the maps.

    The caller must check `fits`.
    """
    return _Pool.apply(maps, regions.contiguous(), size, scale)  # pyright: ignore[reportReturnType]


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, regions: Tensor, size: int, scale: float) -> Tensor:
        maps = maps.contiguous(memory_format=torch.channels_last)
        count, (_, channels, height, width) = len(regions), maps.shape
        result = POOL.maps(count, channels, size, size, dtype=maps.dtype)
        # The place of each maximum in its map, for the gradient.
        chosen = None
        if ctx.needs_input_grad[0]:
            chosen = POOL.maps(count, channels, size, size, dtype=torch.int32)
        narrow, sizes = maps.dtype == torch.bfloat16, (count, height, width, channels, size)
        library().pool_regions(narrow, address(maps), address(regions), scale, *sizes, address(result), address(chosen))
        ctx.save_for_backward(chosen, regions)
        ctx.shape, ctx.dtype = maps.shape, maps.dtype
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        chosen, regions = ctx.saved_tensors
        dy = gradients[0].to(ctx.dtype).contiguous(memory_format=torch.channels_last)
        # Regions overlap: their gradients are added in float32.
        _, channels, height, width = ctx.shape
        dmaps = POOL.maps(*ctx.shape).zero_()
        sizes = (len(regions), height * width, channels, dy.shape[2] * dy.shape[3])
        library().differentiate_regions(
            ctx.dtype == torch.bfloat16, address(dy), address(chosen), address(regions), *sizes, address(dmaps)
        )
        return dmaps.to(ctx.dtype), None, None, None
