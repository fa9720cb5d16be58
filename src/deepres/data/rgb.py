"""From an encoded picture to eight bits a channel: orientation, depth, transparency and size limits."""

import io
from pathlib import Path

from PIL import Image

from deepres.data import heif
from deepres.data.depth import DEEP_MODES, eight_bits
from deepres.data.listing import MOST_BYTES, Content, Span
from deepres.runtime import variables
from deepres.runtime.errors import reason_of
from deepres.runtime.files import require_regular

Image.MAX_IMAGE_PIXELS = None  # `max_pixels()` takes the place of Pillow's limit
MOST_PIXELS = 2**26  # a larger one (8192x8192) fills memory from a small file: a decompression bomb
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # Pillow knows more, of which EPS runs a program
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def max_pixels() -> int:
    """The most pixels that a picture may have: `DEEPRES_MAX_PIXELS`, or 67 million."""
    return variables.whole("DEEPRES_MAX_PIXELS", MOST_PIXELS)


def open_picture(content: Content) -> Image.Image:
    """The opened picture: its head is read, its pixels are not decoded yet.

    Raises `ValueError` for more than `max_pixels()` pixels, `OSError` for what is not a regular file, and what Pillow
    raises for what is not a picture.
    """
    if isinstance(content, Image.Image):
        return content
    if isinstance(content, Span):
        content = content.read()
    if isinstance(content, Path):
        require_regular(content, MOST_BYTES)
    image = heif.opened(io.BytesIO(content) if isinstance(content, bytes) else content, FORMATS)
    width, height = image.size
    if width * height > (most := max_pixels()):
        image.close()
        raise ValueError(f"{width}x{height} are more than the limit of {most:,} pixels (DEEPRES_MAX_PIXELS)")
    return image


def seen_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of `upright(image)`, without decoding it."""
    width, height = image.size
    sideways = orientation_of(image) in SIDEWAYS and image.format != "TIFF"  # Pillow rotates TIFF itself
    return (height, width) if sideways else (width, height)


def is_upright(image: Image.Image) -> bool:
    """Whether `upright(image)` neither turns nor mirrors it."""
    return orientation_of(image) not in TURNS


def is_gray(image: Image.Image) -> bool:
    """Whether `upright(image)` is of mode L."""
    return image.mode in ("1", "L", *DEEP_MODES) and not image.has_transparency_data


def upright(image: Image.Image) -> Image.Image:
    """The picture as it should be seen, in mode L (gray) or RGB.

    The EXIF orientation is applied. More than eight bits a channel are scaled by `depth.eight_bits`. Transparent
    pixels are put on white. Pillow converts CMYK and palettes to RGB, without their colour profile. Raises `ValueError`
    for floating-point values and those of more than 16 bits whose range is not declared.
    """
    opened, image = image, eight_bits(image)
    orientation = orientation_of(opened)  # after loading, since Pillow has rotated a TIFF then
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def fault(error: Exception) -> str:
    """Why a picture does not decode, in a few words, without the memory address that Pillow puts in."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    reason = reason_of(error)
    return "it is not a picture" if "cannot identify image file" in reason else reason


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation: 1 for an upright picture, up to 8."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF data do not make the picture bad; Pillow raises almost anything
        return 1
