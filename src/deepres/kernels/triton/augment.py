"""The augmentation of Sec. 4.2 as one kernel: gather, pad, crop, flip, scale to 0..1, subtract the mean image."""

# pyright: basic, reportUnknownParameterType=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256  # pixels that a program makes


@triton.jit
def _crop_flip_normalise(
    images,
    labels,
    raw,
    mean,
    out,
    out_labels,
    raw_stride,
    PAD: tl.constexpr,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    number = tl.program_id(0)
    place, row = tl.load(raw + number), tl.load(raw + raw_stride + number)
    column, flip = tl.load(raw + 2 * raw_stride + number), tl.load(raw + 3 * raw_stride + number)
    # Where each pixel of the result comes from.
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < HEIGHT * WIDTH
    y, x = pixel // WIDTH, pixel % WIDTH
    from_y = y + row - PAD
    from_x = tl.where(flip != 0, WIDTH - 1 - x, x) + column - PAD
    seen = inside & (from_y >= 0) & (from_y < HEIGHT) & (from_x >= 0) & (from_x < WIDTH)
    source = images + place * (CHANNELS * HEIGHT * WIDTH) + from_y * WIDTH + from_x
    target = (number.to(tl.int64) * (HEIGHT * WIDTH) + pixel) * CHANNELS
    for channel in tl.static_range(CHANNELS):  # pyright: ignore[reportGeneralTypeIssues]
        value = tl.load(source + channel * (HEIGHT * WIDTH), mask=seen, other=0).to(tl.float32)
        less = tl.load(mean + pixel * CHANNELS + channel, mask=inside, other=0.0)
        tl.store(out + target + channel, tl.div_rn(value, 255.0) - less, mask=inside)
    if tl.program_id(1) == 0:
        tl.store(out_labels + number, tl.load(labels + place))


def crop_flip_normalise(images: Tensor, labels: Tensor, raw: Tensor, mean: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """The images and labels at `raw[0]`, augmented by the other rows of `raw`: see `Batches.raw`.

    `images` is uint8 (N, C, H, W) and contiguous, `labels` int64 (N,), `raw` int64 (4, n), and `mean` float32
    (1, C, H, W), channels-last in memory. Returns float32 (n, C, H, W), channels-last in memory, with the bits of
    `crop_flip` and `normalise`, and int64 (n,).
    """
    _, channels, height, width = images.shape
    count = raw.shape[1]
    shape = (count, channels, height, width)
    out = torch.empty(shape, device=images.device, memory_format=torch.channels_last)
    out_labels = torch.empty(count, dtype=torch.int64, device=images.device)
    grid = (count, triton.cdiv(height * width, BLOCK))
    sizes: dict[str, Any] = {"PAD": pad, "CHANNELS": channels, "HEIGHT": height, "WIDTH": width, "BLOCK": BLOCK}
    _crop_flip_normalise[grid](images, labels, raw, mean, out, out_labels, raw.stride(0), **sizes)
    return out, out_labels
