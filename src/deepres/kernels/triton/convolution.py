"""Convolutions of channels-last maps by PyTorch's libraries: 1x1 of stride 1 as products of matrices."""

import torch
from torch import Tensor

Pair = tuple[int, int]
aten = torch.ops.aten


def convolve(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """x * kernel, channels-last."""
    if _is_product(kernel, stride):
        return _maps(_matrix(x) @ _weights(kernel).t(), x)
    return torch.conv2d(x, kernel, None, stride, padding).contiguous(memory_format=torch.channels_last)


def differentiate(
    dz: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, need_x: bool
) -> tuple[Tensor | None, Tensor]:
    """The gradients of x (if needed) and of the kernel, from dz, that of the result."""
    if _is_product(kernel, stride):
        dx = _maps(_matrix(dz) @ _weights(kernel), x) if need_x else None
        # With the strides of the kernel, also where they have no meaning: the fused optimizer compares them.
        return dx, (_matrix(dz).t() @ _matrix(x)).as_strided(kernel.shape, kernel.stride())
    constants = (None, stride, padding, (1, 1), False, (0, 0), 1)
    dx, dkernel, _ = aten.convolution_backward(dz, x, kernel, *constants, (need_x, True, False))
    return None if dx is None else dx.contiguous(memory_format=torch.channels_last), dkernel


def _is_product(kernel: Tensor, stride: Pair) -> bool:
    return kernel.shape[2:] == (1, 1) and stride == (1, 1)


def _matrix(maps: Tensor) -> Tensor:
    """(N, C, H, W), channels-last, as (N * H * W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _weights(kernel: Tensor) -> Tensor:
    return kernel.view(kernel.shape[:2])


def _maps(matrix: Tensor, like: Tensor) -> Tensor:
    """(N * H * W, C) as (N, C, H, W), channels-last, with the other sizes of `like`."""
    count, _, height, width = like.shape
    return matrix.view(count, height, width, -1).permute(0, 3, 1, 2)
