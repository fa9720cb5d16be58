"""The augmentation of Sec. 4.2 against a plain loop over single images."""

import torch
from torch import Tensor

from deepres.data.augment import crop_flip, normalise


def reference(image: Tensor, row: int, column: int, flip: bool, pad: int) -> Tensor:
    """One image (C, H, W) at a time, in the words of the paper."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=image.dtype)
    padded[:, pad : pad + height, pad : pad + width] = image
    cut = padded[:, row : row + height, column : column + width]
    return cut.flip(2) if flip else cut


def test_whole_batches_are_cut_and_flipped_as_single_images_are():
    """Every offset from 0 to 2*pad, both ways round, on images that are not square."""
    draws = [(row, column, flip) for row in range(9) for column in range(9) for flip in (False, True)]
    images = torch.randint(0, 256, (len(draws), 3, 10, 12), dtype=torch.uint8)
    rows, columns, flips = (torch.tensor(values) for values in zip(*draws, strict=True))
    expected = torch.stack([reference(image, *draw, pad=4) for image, draw in zip(images, draws, strict=True)])
    assert torch.equal(crop_flip(images, rows, columns, flips, pad=4), expected)


def test_the_middle_offset_leaves_an_image_as_it_is():
    """Offset `pad` without a flip is the identity, also for one channel and channels-last memory."""
    images = torch.randint(0, 256, (3, 1, 6, 6), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    middle = torch.full((3,), 2)
    assert torch.equal(crop_flip(images, middle, middle, torch.zeros(3, dtype=torch.bool), pad=2), images)


def test_the_corner_offset_shows_black_above_and_left():
    """At offset 0 the first `pad` rows and columns are zeros."""
    images = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    zero = torch.zeros(1, dtype=torch.int64)
    cut = crop_flip(images, zero, zero, torch.zeros(1, dtype=torch.bool), pad=4)
    assert cut[0, :, :4].sum() == 0 and cut[0, :, :, :4].sum() == 0 and cut[0, :, 4:, 4:].min() == 255


def test_normalise_scales_to_one_and_subtracts_the_mean_without_dividing():
    """White minus a mean of 0.25 is 0.75; the input is left as it was."""
    images = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    result = normalise(images, torch.full((3, 4, 4), 0.25))
    assert result.dtype == torch.float32 and torch.all(result == 0.75) and images.min() == 255
