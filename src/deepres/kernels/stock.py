"""Convolutions on a CPU by PyTorch, and their gradients: each in the fastest way that PyTorch has."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.kernels import unfolded
from deepres.kernels.pool import POOL
from deepres.kernels.unfolded import Pair
from deepres.runtime.processor import WIDE, multiplies_bf16

_backward = torch.ops.aten.convolution_backward.default
SMALL = 28 * 28  # positions of a map, up to which products of matrices are faster for 1x1 kernels
FEWEST = 128  # positions of all images, up to which unfolded products are faster for 3x3 kernels
Gradients = tuple[Tensor | None, Tensor | None]  # of x and of the kernel; None where it is not needed


def convolve(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, unfolds: bool = True) -> Tensor:
    """x (N, C, H, W) * kernel (K, C, h, w), in the type of x; without `unfolds` by the same algorithm for any N."""
    with torch.autocast("cpu", enabled=False):
        maps, weights = _factors(x, kernel.to(x.dtype))
        if unfolds and _unfolds(x, kernel, stride):
            result = unfolded.convolve(maps, weights, stride, padding)
        else:
            result = F.conv2d(maps, weights, None, stride, padding)
        return result.to(x.dtype)


def differentiate(dy: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, *need: bool) -> Gradients:
    """The gradients of x and of the kernel, in their types; the two in `need` say which are needed."""
    way = _by_product if _is_product(kernel, stride, x) else _by_library
    if _unfolds(x, kernel, stride):
        way = unfolded.differentiate
    dy, maps, weights = _factors(dy, x, kernel.to(x.dtype))
    dx, dkernel = way(dy, maps, weights, stride, padding, *need)
    return None if dx is None else dx.to(x.dtype), None if dkernel is None else dkernel.to(kernel.dtype)


def multiplied_narrow(x: Tensor) -> bool:
    """Whether PyTorch multiplies maps like x in bf16."""
    return x.dtype == torch.bfloat16 and multiplies_bf16()


def _factors(*factors: Tensor) -> tuple[Tensor, ...]:
    """`factors`, converted to fp32 if PyTorch would only emulate products of bf16, which takes several times longer."""
    return factors if multiplies_bf16() else tuple(factor.float() for factor in factors)


def _unfolds(x: Tensor, kernel: Tensor, stride: Pair) -> bool:
    """Whether the unfolded product is faster, as measured (Zen 1): with few results oneDNN mostly copies kernels."""
    results = x.numel() // (x.shape[1] * stride[0] * stride[1])
    return _products(x) and kernel.shape[2:] == (3, 3) and results <= FEWEST


def _is_product(kernel: Tensor, stride: Pair, x: Tensor) -> bool:
    """Whether `_by_product` is faster, as measured: 1x1 kernels with a stride, or on small maps."""
    small = _products(x) and x.shape[2] * x.shape[3] <= SMALL
    return kernel.shape[2:] == (1, 1) and (stride != (1, 1) or small)


def _by_library(dy: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, *need: bool) -> Gradients:
    """As `differentiate`, by PyTorch's own operation."""
    dx, dkernel, _ = _backward(dy, x, kernel, None, stride, padding, [1, 1], False, [0, 0], 1, [*need, False])
    return dx, dkernel


def _products(x: Tensor) -> bool:
    """Whether PyTorch's products of matrices are as fast as its convolutions: on some CPUs MKL uses no AVX-512."""
    return multiplied_narrow(x) or not WIDE


def _by_product(dy: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, *need: bool) -> Gradients:
    """As `differentiate`, for 1x1: skipped positions of x are left out, and dkernel may be a product of matrices."""
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
