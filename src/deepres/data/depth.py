"""Values of more than eight bits a channel, brought to eight by the range that the file declares or shows.

Cameras and scanners of 10, 12 and 14 bits leave their values in the lower part of 16 or 32, so that the upper eight
bits of these would be black.
"""

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
DEPTHS = (8, 10, 12, 14, 16)  # bits that instruments give
UNDECLARED = 65535  # of a PGM or PPM, as programs write it that do not know their values
PHOTOMETRIC, BITS, SAMPLE_FORMAT = 262, 258, 339  # tags of TIFF
MAX_VALUE, SMIN_VALUE, SMAX_VALUE = 281, 340, 341
Values = np.ndarray[Any, Any]


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture, loaded: as it is where it has eight bits a channel, else a new one of mode L, RGB, RGBA or CMYK.

    Of n bits the upper eight are kept, where n is the least of 8, 10, 12, 14 and 16 that holds the largest value that
    the file declares (TIFF: tags 258, 281 and 341; PGM and PPM: a maximum other than 65535) or, where it declares none,
    shows; the alpha channel has an n of its own. Values below 0 and floating point take the range of the TIFF tags 340
    and 341. Raises `ValueError` where these are needed and missing, and for undeclared values beyond 16 bits.
    """
    low, high = _declared(image)
    colours = _sixteen_bits(image)  # while the file is open
    image.load()
    if image.mode in DEEP_MODES:
        values = np.asarray(image)
        if image.format == "TIFF" and _tag(image, SAMPLE_FORMAT) in (None, 1) and values.dtype == np.int32:
            values = values.view(np.uint32)  # Pillow has no unsigned mode of 32 bits
        scaled = _eight(values, low, high)
        # Pillow turns what counts from white to black only where it has eight bits.
        return Image.fromarray(255 - scaled if _tag(image, PHOTOMETRIC) == 0 else scaled)
    if colours is None or np.asarray(image)[..., :3].max(initial=0) > 2 ** (DEPTHS[-2] - 8):
        return image  # the upper eight of sixteen, as Pillow takes them
    values = colours()
    parts = [values] if image.mode == "CMYK" else [values[..., :3], values[..., 3:]]
    return Image.fromarray(np.concatenate([_eight(part, low, high) for part in parts if part.size], -1), image.mode)


def _eight(values: Values, low: float | None, high: float | None) -> Values:
    """The values as uint8; `low` and `high` are declared."""
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
    """The least and the largest value by the head of the file, each where it says so. Before loading."""
    tiles = _tiles(image)
    if image.format == "PPM" and image.mode == "I" and tiles:
        known = isinstance(tiles[0].args, tuple) and tiles[0].args[-1] != UNDECLARED
        return None, UNDECLARED if known else None  # to which Pillow stretches it
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
    """For a colour picture of 16 bits a channel, what reads all of them, (H, W, C) uint16. Before loading.

    Pillow keeps the upper byte. It gives the lower one to whom asks for the bytes in the other order.
    """
    tile = next(iter(_tiles(image)), None)
    if tile is None or image.mode in DEEP_MODES or not isinstance(tile.args, (str, tuple)):
        return None
    mode = tile.args if isinstance(tile.args, str) else str(tile.args[0])
    plain = image.format == "PPM" and tile.codec_name == "ppm" and tile.args == ("RGB", UNDECLARED)
    if not plain and (";16" not in mode or mode.startswith("RGBa")):  # premultiplied: its lower bytes are not told
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
    other = "RGBA" if mode == "LA;16B" else mode[:-1] + {"L": "B", "B": "L"}[order]  # LA has no other order: all bytes
    with Image.open(io.BytesIO(content), formats=[form]) as twin:
        tiles = _tiles(twin)
        swapped = [other if isinstance(tile.args, str) else (other, *tile.args[1:]) for tile in tiles]
        twin.tile = [tile._replace(args=args) for tile, args in zip(tiles, swapped, strict=True)]
        lower = np.array(twin)
    return lower[..., [1, 1, 1, 3]] if mode == "LA;16B" else lower
