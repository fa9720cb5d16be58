"""The size of the images that a detector sees."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2


def fitted_size(size: tuple[int, int], side: int, longest: int) -> tuple[int, int]:
    """`size` (height, width) with the shorter side scaled to `side`, or the longer one to `longest` if that is less."""
    scale = min(side / min(size), longest / max(size))
    height, width = (max(1, round(scale * length)) for length in size)
    return height, width


def fitted(image: Tensor, side: int, longest: int) -> Tensor:
    """An image uint8 (C, H, W) of `fitted_size`, by antialiased bilinear resampling."""
    height, width = fitted_size((image.shape[-2], image.shape[-1]), side, longest)
    return image if image.shape[-2:] == (height, width) else v2.resize(image, [height, width], antialias=True)


def padded(images: list[Tensor], mean: Tensor) -> Tensor:
    """Images uint8 (C, H_i, W_i) as float32 (N, C, H, W), less `mean` (C, 1, 1) in 0..1; the padding is 0."""
    height, width = (max(image.shape[place] for image in images) for place in (-2, -1))
    batch = images[0].new_zeros(len(images), len(images[0]), height, width, dtype=torch.float32)
    for own, image in zip(batch, images, strict=True):
        own[:, : image.shape[1], : image.shape[2]] = image.float() / 255 - mean
    return batch.contiguous(memory_format=torch.channels_last)
