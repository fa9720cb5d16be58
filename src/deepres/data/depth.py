"""Pictures of more than eight bits a channel, scaled to eight by the range of values that the file declares or has.

Cameras and scanners of 10, 12 and 14 bits store their values in the lower bits of 16 or 32. The upper eight bits alone
would be a black picture.
"""

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners
UNDECLARED = 65535  # the maximum in a PGM or PPM whose writer did not know the real one
PHOTOMETRIC, BITS, SAMPLE_FORMAT = 262, 258, 339  # tags of TIFF
MAX_VALUE, SMIN_VALUE, SMAX_VALUE = 281, 340, 341
Values = np.ndarray[Any, Any]


def eight_bits(image: Image.Image) -> Image.Image:
    """The loaded picture, unchanged if it has eight bits a channel, else as a new one of mode L, RGB, RGBA or CMYK.

    The upper eight of n bits are kept. n is the least of 8, 10, 12, 14 and 16 bits that holds the largest value: the
    one that the file declares (TIFF: tags 258, 281 and 341; PGM and PPM: a maximum other than 65535), or else the
    largest one in the picture. The alpha channel has its own n. Negative and floating-point values are scaled by the
    range of the TIFF tags 340 and 341. Raises `ValueError` where these tags are needed and missing, and for undeclared
    values beyond 16 bits.
    """
    low, high = _declared(image)
    colours = _sixteen_bits(image)  # before `load`, which closes the file
    image.load()
    if image.mode in DEEP_MODES:
        values = np.asarray(image)
        if image.format == "TIFF" and _tag(image, SAMPLE_FORMAT) in (None, 1) and values.dtype == np.int32:
            values = values.view(np.uint32)  # Pillow has no unsigned mode of 32 bits
        scaled = _eight(values, low, high)
        # Pillow inverts pictures in which 0 is white only if they have eight bits.
        return Image.fromarray(255 - scaled if _tag(image, PHOTOMETRIC) == 0 else scaled)
    if colours is None or np.asarray(image)[..., :3].max(initial=0) > 2 ** (DEPTHS[-2] - 8):
        return image  # Pillow has kept the upper eight of 16 bits
    values = colours()
    parts = [values] if image.mode == "CMYK" else [values[..., :3], values[..., 3:]]
    scaled = np.concatenate([_eight(part, low, high) for part in parts if part.size], -1)
    return Image.merge(image.mode, [Image.fromarray(band) for band in np.moveaxis(scaled, -1, 0)])


def _eight(values: Values, low: float | None, high: float | None) -> Values:
    """The values as uint8. `low` and `high` are the declared ends of their range, if any."""
    least, most = values.min(), values.max()
    if least >= 0 and values.dtype.kind != "f":
        most = max(int(most), int(high or 0))
        bits = next((bits for bits in DEPTHS if most < 2**bits), most.bit_length())
        if bits > DEPTHS[-1] and high is None:
            raise ValueError(f"its values reach from {least} to {most}, beyond 16 bits; TIFF can declare their range")
        return (values >> (bits - 8)).astype(np.uint8)
    if low is None or high is None or not low < high or not (np.isfinite(least) and np.isfinite(most)):
        kind = (
            "floating point" if values.dtype.kind == "f" else f"from {least} to {most}, beyond 16 bits without a sign"
        )
        raise ValueError(f"its values are {kind}, which have no range but one declared by the TIFF tags 340 and 341")
    steps = high - low + (values.dtype.kind != "f")
    return ((values.astype(np.float64) - low) * (256 / steps)).clip(0, 255).astype(np.uint8)


def _declared(image: Image.Image) -> tuple[float | None, float | None]:
    """The least and the largest value that the head of the file declares, if it does. Call it before loading."""
    tiles = _tiles(image)
    if image.format == "PPM" and image.mode == "I" and tiles:
        known = isinstance(tiles[0].args, tuple) and tiles[0].args[-1] != UNDECLARED
        return None, UNDECLARED if known else None  # Pillow stretches the values to this maximum
    if image.format != "TIFF":
        return None, None
    packed = 4095.0 if _tag(image, BITS) == 12 else None
    highs = [value for value in (packed, _tag(image, MAX_VALUE), _tag(image, SMAX_VALUE)) if value is not None]
    return _tag(image, SMIN_VALUE), max(highs, default=None)


def _tiles(image: Image.Image) -> Any:
    """Where in the file the pixels are, and as which raw mode; empty once they are loaded."""
    return getattr(image, "tile", [])


def _tag(image: Image.Image, number: int) -> float | None:
    """The first value of a tag of a TIFF, None where it has none."""
    value: Any = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, ZeroDivisionError):  # a damaged tag does not make the picture bad
        return None


def _sixteen_bits(image: Image.Image) -> Callable[[], Values] | None:
    """For a colour picture of 16 bits a channel, a function that reads them, uint16 (H, W, C). Call it before loading.

    Pillow keeps only the upper byte. Read in the other byte order, it keeps the lower one instead.
    """
    tile = next(iter(_tiles(image)), None)
    if tile is None or image.mode in DEEP_MODES or not isinstance(tile.args, (str, tuple)):
        return None
    mode = tile.args if isinstance(tile.args, str) else str(tile.args[0])
    plain = image.format == "PPM" and tile.codec_name == "ppm" and tile.args == ("RGB", UNDECLARED)
    if not plain and (";16" not in mode or mode.startswith("RGBa")):  # premultiplied: lower bytes are lost
        return None
    file: Any = image.fp  # pyright: ignore[reportAttributeAccessIssue]
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    if plain:
        shape = (image.height, image.width, 3)
        return lambda: np.frombuffer(content, ">u2", np.prod(shape), tile.offset).reshape(shape).astype(np.uint16)
    return lambda: np.asarray(image).astype(np.uint16) << 8 | _lower_bytes(content, str(image.format), mode)


def _lower_bytes(content: bytes, form: str, mode: str) -> Values:
    """The lower byte of each channel, (H, W, C), of a file that Pillow reads as the raw mode `mode`."""
    native = "L" if sys.byteorder == "little" else "B"
    order = mode[-1].replace("N", native)
    # LA;16L is unknown to Pillow, which reads all its bytes as RGBA.
    other = "RGBA" if mode == "LA;16B" else mode[:-1] + {"L": "B", "B": "L"}[order]
    with Image.open(io.BytesIO(content), formats=[form]) as twin:
        tiles = _tiles(twin)
        swapped = [other if isinstance(tile.args, str) else (other, *tile.args[1:]) for tile in tiles]
        twin.tile = [tile._replace(args=args) for tile, args in zip(tiles, swapped, strict=True)]
        lower = np.array(twin)
    return lower[..., [1, 1, 1, 3]] if mode == "LA;16B" else lower
