"""A convolution as one product of matrices: for small maps, whose kernels have more values than the maps."""

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


def convolve(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """x (N, C, H, W) * kernel (K, C, h, w), as `F.conv2d`; the result is channels-last."""
    windows = _windows(x, kernel, stride, padding)
    return (windows.flatten(0, 2).flatten(1) @ _matrix(kernel).T).unflatten(0, windows.shape[:3]).permute(0, 3, 1, 2)


def differentiate(
    dy: Tensor, x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, *need: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and of the kernel, channels-last; the two in `need` say which are needed."""
    rows, (count, channels, height, width) = dy.permute(0, 2, 3, 1).flatten(0, 2), x.shape
    places, (down, across) = dy.shape[2:], kernel.shape[2:]
    dx, dkernel = None, None
    # dx: the product gives each position's part for its whole window; windows overlap, and their parts are added.
    if need[0]:
        parts = (rows @ _matrix(kernel)).view(count, *places, down, across, channels)
        precise = torch.promote_types(x.dtype, torch.float32)  # of the sums over overlapping windows
        padded = x.new_zeros(count, height + 2 * padding[0], width + 2 * padding[1], channels, dtype=precise)
        for i, j in product(range(down), range(across)):
            ends = i + stride[0] * (places[0] - 1) + 1, j + stride[1] * (places[1] - 1) + 1
            padded[:, i : ends[0] : stride[0], j : ends[1] : stride[1]] += parts[:, :, :, i, j]
        inside = padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
        dx = inside.permute(0, 3, 1, 2).to(x.dtype)
    # dkernel: one product over all positions.
    if need[1]:
        windows = _windows(x, kernel, stride, padding).flatten(0, 2).flatten(1)
        dkernel = (rows.T @ windows).view(-1, down, across, channels).permute(0, 3, 1, 2)
    return dx, dkernel


def _windows(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """The window of x at each position: (N, positions down, positions across, h, w, C), a view of padded x."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    return padded.unfold(1, kernel.shape[2], stride[0]).unfold(2, kernel.shape[3], stride[1]).permute(0, 1, 2, 4, 5, 3)


def _matrix(kernel: Tensor) -> Tensor:
    """The kernel as a matrix (K, h * w * C), in the order of `_windows`."""
    return kernel.permute(0, 2, 3, 1).flatten(1)
