"""The training augmentation of Sec. 4.2 on whole batches, as pure functions of images and random numbers.

The augmentation of Sec. 3.4, by scale and crop, is in `crops.py`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class CropFlip:
    """The augmentation of Sec. 4.2: images padded by `pad` pixels, cut to their size again, and flipped by chance.

    With `alternate_flips`, an image is flipped in every second epoch, by chance from the first or the second one on.
    """

    pad: int = 4
    alternate_flips: bool = False


def crop_flip(images: Tensor, rows: Tensor, columns: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Images padded by `pad` black pixels, cropped to their size at (row, column), and flipped left-right by `flips`.

    `images` is (N, C, H, W) of any type; `rows` and `columns` are int64 (N,) from 0 to 2*pad, where `pad` does not move
    the image; `flips` is bool (N,). Returns (N, C, H, W) of the same type. Sec. 4.2: "4 pixels are padded on each side,
    and a 32x32 crop is randomly sampled from the padded image or its horizontal flip". The paper does not name the
    colour of the padding.
    """
    count, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, (pad, pad, pad, pad))
    # The row and column in the padded image of each pixel of the result.
    across = torch.arange(width, device=device).expand(count, width)
    across = torch.where(flips[:, None], width - 1 - across, across)
    row = rows[:, None] + torch.arange(height, device=device)
    column = columns[:, None] + across
    # One gather from the flattened padded image takes half the time of indexing with three tensors.
    place = row[:, :, None] * (width + 2 * pad) + column[:, None, :]
    place = place.view(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, place).view(images.shape)


def normalise(images: Tensor, mean: Tensor) -> Tensor:
    """Scale uint8 images (N, C, H, W) to 0..1 and subtract the mean image (C, H, W), in float32.

    The memory format stays. Sec. 4.2 subtracts the per-pixel mean and names no division by a standard deviation.
    """
    return torch.div(images, 255).sub_(mean)


def channels_last(mean: Tensor) -> Tensor:
    """The mean image (C, H, W) as (1, C, H, W) in channels-last memory, as the batches are."""
    return mean[None].contiguous(memory_format=torch.channels_last)
