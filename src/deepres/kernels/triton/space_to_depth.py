"""conv1 of Table 1 as a 4x4 convolution of stride 1: each square of 2x2 pixels becomes one position with 12 channels.

A 7x7 convolution of stride 2 sees whole squares, if its kernel gets a row and a column of zeros. Three channels use a
fifth of what a GPU multiplies at once; twelve, with four of zeros, all of it.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional as F

jit: Any = triton.jit
CHANNELS = 16  # of a folded image
BEFORE, AFTER = 2, 1  # squares of zeros at the edges


def fits(conv: nn.Conv2d, images: Tensor) -> bool:
    """Whether `conv` can run on folded images: 7x7 of stride 2, few channels, an even size; images need no gradient."""
    shape = (conv.kernel_size, conv.stride, conv.padding) == ((7, 7), (2, 2), (3, 3))
    even = images.shape[2] % 2 == 0 and images.shape[3] % 2 == 0
    return shape and even and 4 * images.shape[1] <= CHANNELS and not images.requires_grad


def fold_images(images: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W), channels-last, to (N, 16, H / 2 + 3, W / 2 + 3): channel 4 * c + 2 * row + column of a square."""
    count, channels, height, width = images.shape
    size = (count, CHANNELS, height // 2 + BEFORE + AFTER, width // 2 + BEFORE + AFTER)
    result = torch.empty(size, dtype=dtype, device=images.device, memory_format=torch.channels_last)
    rows = result.numel() // CHANNELS
    sizes = (rows, channels, height, width, *size[2:])
    _fold[(triton.cdiv(rows, 64),)](images, result, *sizes, BEFORE=BEFORE, ROWS=64, CHANNELS=CHANNELS)
    return result


def fold_kernel(kernel: Tensor) -> Tensor:
    """(K, C, 7, 7) to (K, 16, 4, 4), channels-last."""
    count, channels = kernel.shape[:2]
    squares = F.pad(kernel, (1, 0, 1, 0)).view(count, channels, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4)
    whole = F.pad(squares.reshape(count, 4 * channels, 4, 4), (0, 0, 0, 0, 0, CHANNELS - 4 * channels))
    return whole.contiguous(memory_format=torch.channels_last)


def unfold_kernel(folded: Tensor, like: Tensor) -> Tensor:
    """(K, 16, 4, 4) back to (K, C, 7, 7), in the form of `like`: of the gradient of a kernel."""
    count, channels = like.shape[:2]
    squares = folded[:, : 4 * channels].reshape(count, channels, 2, 2, 4, 4).permute(0, 1, 4, 2, 5, 3)
    return torch.empty_like(like).copy_(squares.reshape(count, channels, 8, 8)[:, :, 1:, 1:])


@jit
def _fold(
    images, result, rows, channels, height, width, high, wide,
    BEFORE: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Each position takes its square of pixels, or zeros outside the image."""
    row, channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, CHANNELS)
    image = row // (high * wide)
    h = ((row // wide % high - BEFORE) * 2)[:, None] + (channel // 2 % 2)[None, :]
    w = ((row % wide - BEFORE) * 2)[:, None] + (channel % 2)[None, :]
    inside = (row < rows)[:, None] & (channel < 4 * channels)[None, :]
    inside = inside & (h >= 0) & (h < height) & (w >= 0) & (w < width)
    places = ((image.to(tl.int64) * height)[:, None] + h) * width + w
    value = tl.load(images + places * channels + (channel // 4)[None, :], mask=inside, other=0)
    tl.store(result + row.to(tl.int64)[:, None] * CHANNELS + channel[None, :], value, mask=(row < rows)[:, None])
