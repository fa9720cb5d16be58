"""The layers before the blocks (Table 1) as one operation: convolution, BN, ReLU and the 3x3 max pool of stride 2.

The normalised map, the largest of a network, is never written: of it the pooled one is kept, and a byte for each of its
values that tells which position of the window it is. The gradient is gathered by these bytes, in a fixed order.
"""

from typing import Any, cast

import torch
import triton
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepres.kernels.triton import batch_norm, space_to_depth
from deepres.kernels.triton import max_pool_kernels as on_gpu
from deepres.kernels.triton.batch_norm import Normalised
from deepres.kernels.triton.convolution import Pair, convolve
from deepres.kernels.triton.convolution import differentiate as differentiate_convolution

PROGRAMS = 396  # of the pass that takes sums: three on each of the 132 multiprocessors of an H100
TILE = {"ROWS": 32, "COLUMNS": 64, "num_warps": 4}


def run(conv: nn.Conv2d, bn: nn.BatchNorm2d, pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """pool(ReLU(bn(conv(x)))) with batch statistics; running statistics are updated as in PyTorch.

    The pool has windows of 3x3 and stride 2. Maps are float32, or bf16 under autocast.
    """
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    return _Stem.apply(x, conv.weight, bn.weight, bn.bias, conv, bn, pool)  # pyright: ignore[reportReturnType]


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernel: Tensor,
        weight: Tensor,
        bias: Tensor,
        conv: nn.Conv2d,
        bn: nn.BatchNorm2d,
        pool: nn.MaxPool2d,
    ) -> Tensor:
        # The convolution, on folded images where it can run on them.
        narrow = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if narrow else x.dtype
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.geometry, ctx.like = (cast(Pair, conv.stride), cast(Pair, conv.padding)), None
        if space_to_depth.fits(conv, x):
            ctx.geometry, ctx.like = ((1, 1), (0, 0)), kernel
            x, kernel = space_to_depth.fold_images(x, dtype), space_to_depth.fold_kernel(kernel)
        x, kernel = x.to(dtype), kernel.to(dtype)
        of = batch_norm.statistics(convolve(x, kernel, *ctx.geometry), bn)
        # Normalization, ReLU and the pool.
        count, channels, height, width = of.z.shape
        padding = cast(int, pool.padding)
        high, wide = (_pooled(size, padding, pool.ceil_mode) for size in (height, width))
        y = torch.empty(count, channels, high, wide, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        chosen = torch.empty_like(y, dtype=torch.uint8)
        ctx.sizes = (count, height, width, high, wide, padding, channels)
        on_gpu.normalise_pool[_grid(y)](*of, y, chosen, *ctx.sizes, **TILE)
        ctx.save_for_backward(x, kernel, weight, *of, chosen)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, kernel, weight, z, found, chosen = ctx.saved_tensors
        of, dy = Normalised(z, found), gradients[0].contiguous(memory_format=torch.channels_last)
        # The sums over the gradient of the ReLU's argument, and from them the gradients of BN.
        sums, parts = batch_norm.room_for_sums(z, 2, PROGRAMS)
        grid = (triton.cdiv(z.shape[1], TILE["COLUMNS"]), parts)
        on_gpu.sum_gradients[grid](dy, chosen, z, found, sums, *ctx.sizes, **TILE)
        slope = batch_norm.finish_slope(sums, 1, of, weight)
        # The gradients of the convolution.
        dz = torch.empty_like(z)
        on_gpu.differentiate[_grid(z)](dy, chosen, z, found, slope.map, dz, *ctx.sizes, **TILE)
        stride, padding = ctx.geometry
        dx, dkernel = differentiate_convolution(dz, x, kernel, stride, padding, ctx.needs_input_grad[0])
        dkernel = dkernel.to(weight.dtype)
        dkernel = dkernel if ctx.like is None else space_to_depth.unfold_kernel(dkernel, ctx.like)
        return dx, dkernel, slope.weight, slope.bias, None, None, None


def _pooled(size: int, padding: int, ceil_mode: bool) -> int:
    """The number of windows of 3 at a distance of 2; the last one begins within the map."""
    windows = (size + 2 * padding - 3 + ceil_mode) // 2 + 1
    return windows - 1 if ceil_mode and (windows - 1) * 2 >= size + padding else windows


def _grid(maps: Tensor) -> tuple[int]:
    rows, columns = maps.numel() // maps.shape[1], maps.shape[1]
    return (triton.cdiv(rows, TILE["ROWS"]) * triton.cdiv(columns, TILE["COLUMNS"]),)
