"""The augmentation of Sec. 3.4 and the views of a picture, as pure functions of encoded bytes and random numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepres.data.augment import normalise
from deepres.data.resizing import centered, margin, resized, scaled
from deepres.data.rgb import open_picture, upright

REDUCING_GAP = 2.0  # a part that shrinks to less than a fourth is averaged first, to this many times its new size
MOST_PIXELS = 2**23  # a picture with more pixels after resizing is not resized as a whole
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
DRAWS = 7  # random numbers for each picture: scale, row, column, flip, and three for the colour


def scale_crop_flip(
    encoded: bytes, draws: Sequence[float], *, crop: int = 224, sides: tuple[int, int] = (256, 480)
) -> Tensor:
    """One training view, uint8 (3, crop, crop): random scale, random crop, random flip, resampled once.

    The first four `draws` (from 0 to below 1) choose the shorter side, a whole number of `sides` with both ends,
    the row and the column of the crop, and the flip. "The image is resized with its shorter side randomly sampled in
    [256, 480] for scale augmentation. A 224x224 crop is randomly sampled from an image or its horizontal flip"
    (Sec. 3.4). Only the crop is resampled (bilinear, antialiased), and a JPEG of at least twice the size is decoded
    at a half, a quarter or an eighth. Raises what Pillow raises for a damaged picture, and `ValueError` for one with
    too many pixels. `crop` must not be above the least side.
    """
    image, box = scaled_crop(encoded, draws, crop, sides)
    view = cut(image, box, crop)
    return view.flip(-1) if is_flipped(draws) else view


def scaled_crop(encoded: bytes, draws: Sequence[float], crop: int, sides: tuple[int, int]) -> tuple[Image.Image, Box]:
    """The decoded picture, of a JPEG perhaps at a part of its size, and the box that `scale_crop_flip` cuts from it."""
    side = least_side(draws, sides)
    with open_picture(encoded) as opened:
        opened.draft(None, scaled(opened.size, side))
        image = upright(opened)
        return image, crop_box(image.size, draws, side, crop)


def least_side(draws: Sequence[float], sides: tuple[int, int]) -> int:
    """The shorter side that a picture is resized to."""
    least, most = sides
    return least + int(draws[0] * (most - least + 1))


def is_flipped(draws: Sequence[float]) -> bool:
    """Whether a picture is flipped."""
    return draws[3] < 0.5


def crop_box(size: tuple[int, int], draws: Sequence[float], side: int, crop: int) -> Box:
    """The part of a picture of `size` (width, height) that becomes the crop when its shorter side becomes `side`."""
    width, height = scaled(size, side)
    row, column = int(draws[1] * (height - crop + 1)), int(draws[2] * (width - crop + 1))
    return _box(size, (width, height), (column, row), crop)


def cut(image: Image.Image, box: Box, crop: int) -> Tensor:
    """The part `box` of the image, resized to a square, without resizing the rest: uint8 (3, crop, crop)."""
    return pixels(image.resize((crop, crop), Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP))


def center_crop(encoded: bytes, draws: Sequence[float] = (), *, crop: int = 224, side: int = 256) -> Tensor:
    """The centre crop, uint8 (3, crop, crop), of the picture resized to a shorter side of `side`. Uses no `draws`.

    The result is bit for bit that of torchvision's `Resize` and `CenterCrop`. Of a very long picture, which would fill
    memory when resized, only the centre is resampled.
    """
    with open_picture(encoded) as opened:
        image = upright(opened)
        width, height = scaled(image.size, side)
        if width * height <= MOST_PIXELS:
            return pixels(centered(resized(image, side), crop))
        return cut(image, _box(image.size, (width, height), (margin(width, crop), margin(height, crop)), crop), crop)


def whole(encoded: bytes, draws: Sequence[float] = ()) -> Tensor:
    """The picture at its own size, uint8 (3, H, W). Uses no `draws`."""
    with open_picture(encoded) as opened:
        return pixels(upright(opened))


def colour_shift(draws: Tensor, *, values: Tensor, vectors: Tensor, sigma: float = 0.1) -> Tensor:
    """What `finish` adds to the colours of each picture, float32 (N, 3), from its uniform numbers `draws` (N, DRAWS).

    The last three of them become the normal numbers of `pca_colour`, whose `values` and `vectors` these are. All are on
    the processor, since some devices have no float64.
    """
    return pca_colour(torch.special.ndtri(draws[:, -3:].double().clamp(min=2**-25)), values, vectors, sigma).float()


def finish(images: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """A batch for the network, float32 (N, 3, H, W): per-pixel mean subtracted, colours shifted.

    `images` is uint8 (N, 3, H, W), `shift` float32 (N, 3) is that of `colour_shift`, and `mean` (3, H, W) or
    (1, 3, H, W) is in units of 0 to 1; all are on one device.
    """
    return normalise(images, mean).add_(shift[:, :, None, None])


def pca_colour(normals: Tensor, values: Tensor, vectors: Tensor, sigma: float = 0.1) -> Tensor:
    """The colour shift of each picture, (N, 3): "the standard color augmentation" of Sec. 3.4.

    It is that of Krizhevsky et al. 2012: the sum of the eigenvectors (columns of `vectors`, (3, 3)) of the covariance
    of RGB, each times its eigenvalue (`values`, (3,), for pixels from 0 to 1) and times a normal number (`normals`,
    (N, 3)) of standard deviation `sigma`. All pixels of a picture have the same shift.
    """
    return sigma * (normals.to(vectors.dtype) * values) @ vectors.T


def _box(size: tuple[int, int], target: tuple[int, int], corner: tuple[int, int], crop: int) -> Box:
    """The part of a picture of `size` that is the square at `corner` (column, row) of it when resized to `target`."""
    across, down = size[0] / target[0], size[1] / target[1]
    left, top = corner[0] * across, corner[1] * down
    return left, top, min(left + crop * across, size[0]), min(top + crop * down, size[1])


def pixels(image: Image.Image) -> Tensor:
    """The picture as RGB, uint8 (3, H, W), channels-last in memory."""
    values = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(values).permute(2, 0, 1)
