"""Resizing and centre crops, bit for bit as torchvision's `Resize` and `CenterCrop` of Pillow pictures.

It uses Pillow alone, since torchvision takes seconds to load. torchvision's resizing of tensors rounds differently.
"""

from PIL import Image


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` with its shorter side scaled to `side`; the longer side is rounded down."""
    first, second = (side * length // min(size) for length in size)
    return first, second


def resized(image: Image.Image, side: int) -> Image.Image:
    """The picture with a shorter side of `side` pixels, by antialiased bilinear resampling if it has another size."""
    size = scaled(image.size, side)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def centered(image: Image.Image, crop: int) -> Image.Image:
    """The middle `crop` x `crop` pixels of a picture; a smaller picture gets a black border."""
    left, top = (margin(length, crop) for length in image.size)
    return image.crop((left, top, left + crop, top + crop))


def margin(length: int, crop: int) -> int:
    """Where the middle `crop` of `length` pixels start, halves rounded to even; below 0 where `length` is smaller."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
