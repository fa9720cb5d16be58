"""Convolutions of processors that go through PyTorch, and their gradients: each by the fastest way that it has."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.kernels import unfolded
from deepres.kernels.pool import POOL
from deepres.runtime.processor import WIDE, multiplies_bf16

_backward = torch.ops.aten.convolution_backward.default
SMALL = 28 * 28  # positions of a map
FEWEST = 128  # positions of all images
Pair = tuple[int, int]


def convolve(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, unfolds: bool = True) -> Tensor:
    """x (N, C, H, W) * kernel (K, C, h, w), in maps like x; without `unfolds` the same way for any N."""
    with torch.autocast("cpu", enabled=False):
        maps, weights = _factors(x, kernel.to(x.dtype))
        if unfolds and _unfolds(x, kernel, stride):
            result = unfolded.convolve(maps, weights, stride, padding)
        else:
            result = F.conv2d(maps, weights, None, stride, padding)
        return result.to(x.dtype)


def differentiate(
    dy: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, *need: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and of the kernel, each where it is needed (two in `need`), in their types."""
    way = _by_product if _is_product(kernel, stride, x) else _by_library
    if _unfolds(x, kernel, stride):
        way = unfolded.differentiate
    dy, maps, weights = _factors(dy, x, kernel.to(x.dtype))
    dx, dkernel = way(dy, maps, weights, stride, padding, *need)
    return None if dx is None else dx.to(x.dtype), None if dkernel is None else dkernel.to(kernel.dtype)


def multiplied_narrow(x: Tensor) -> bool:
    """Whether maps like x are multiplied as bf16."""
    return x.dtype == torch.bfloat16 and multiplies_bf16()


def _factors(*factors: Tensor) -> tuple[Tensor, ...]:
    """The same values in fp32 where PyTorch would emulate products of bf16, at several times their cost."""
    return factors if multiplies_bf16() else tuple(factor.float() for factor in factors)


def _unfolds(x: Tensor, kernel: Tensor, stride: Pair) -> bool:
    """Whether the unfolded product is faster, by measurement (Zen 1): for few results oneDNN mostly moves kernels."""
    results = x.numel() // (x.shape[1] * stride[0] * stride[1])
    return _products(x) and kernel.shape[2:] == (3, 3) and results <= FEWEST


def _is_product(kernel: Tensor, stride: Pair, x: Tensor) -> bool:
    """Whether `_by_product` is faster, by measurement: 1x1 with a stride, or on small maps."""
    small = _products(x) and x.shape[2] * x.shape[3] <= SMALL
    return kernel.shape[2:] == (1, 1) and (stride != (1, 1) or small)


def _by_library(
    dy: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, *need: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and of the kernel, each where it is needed (two in `need`)."""
    dx, dkernel, _ = _backward(dy, x, kernel, None, stride, padding, [1, 1], False, [0, 0], 1, [*need, False])
    return dx, dkernel


def _products(x: Tensor) -> bool:
    """Whether PyTorch's products of matrices are as fast as its convolutions: MKL's go without AVX-512 on some."""
    return multiplied_narrow(x) or not WIDE


def _by_product(
    dy: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, *need: bool
) -> tuple[Tensor | None, Tensor | None]:
    """As `_by_library`, for 1x1: a stride skips positions of x, and the kernel's gradient may be a matrix product."""
    read, products, dx, dkernel = x[:, :, :: stride[0], :: stride[1]], _products(x), None, None
    if need[0] or not products:
        dx, dkernel = _by_library(dy, read, kernel, (1, 1), padding, need[0], need[1] and not products)
    if need[0] and stride != (1, 1) and dx is not None:
        dx, of_read = POOL.maps(*x.shape, dtype=x.dtype).zero_(), dx
        dx[:, :, :: stride[0], :: stride[1]] = of_read
    if need[1] and products:
        rows = [maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]) for maps in (dy, read)]
        dkernel = (rows[0].T @ rows[1]).reshape(kernel.shape)
    return dx, dkernel
