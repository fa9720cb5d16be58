"""The one way to another size: torchvision's `Resize` and `CenterCrop` of Pillow's pictures, to the last bit.

By Pillow alone, since torchvision takes seconds to load, and its resizing of tensors gives other pixels than that of
pictures, by a level of rounding.
"""

from PIL import Image


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` with its shorter side brought to `side`; the longer one is cut to whole pixels."""
    first, second = (side * length // min(size) for length in size)
    return first, second


def resized(image: Image.Image, side: int) -> Image.Image:
    """The picture with its shorter side at `side` pixels, bilinear with antialias; of that size already, itself."""
    size = scaled(image.size, side)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def centered(image: Image.Image, crop: int) -> Image.Image:
    """The middle `crop` x `crop` pixels of a picture, with black around one that is smaller."""
    left, top = (margin(length, crop) for length in image.size)
    return image.crop((left, top, left + crop, top + crop))


def margin(length: int, crop: int) -> int:
    """Where the middle `crop` of `length` pixels begin: halves go to the even number; below 0 where they are fewer."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
