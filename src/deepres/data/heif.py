"""HEIC and AVIF, the picture formats of phones: read where Pillow can, by itself or through `pillow-heif`."""

import io
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError, features

HEAD = 64  # bytes, in which the brands of the format are
BOX = b"ftyp"
AVIF = (b"avif", b"avis")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"heif")


def opened(file: io.BytesIO | Path, formats: tuple[str, ...]) -> Image.Image:
    """Open a picture in one of `formats`, or in HEIC or AVIF, recognized by its first bytes, not by its name.

    Raises `ValueError` for HEIC or AVIF that this installation cannot read, and what Pillow raises.
    """
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        kind = _kind(file)
        if kind is None:
            raise
    if not _is_read(kind):
        raise ValueError(f"it is {kind}, which Pillow does not read here; pip install 'deepres[heif]'")
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return Image.open(file, formats=("AVIF" if kind == "AVIF" else "HEIF",))


def _kind(file: io.BytesIO | Path) -> str | None:
    """`AVIF` or `HEIC`, by the brands in the head of a file; None for other formats."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            head = stream.read(HEAD)
    else:
        head = file.getvalue()[:HEAD]
    if head[4:8] != BOX:
        return None
    # The box holds the major brand, a version, and the compatible brands up to its end.
    end = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, min(end, HEAD), 4))]
    if any(brand in AVIF for brand in brands):
        return "AVIF"
    return "HEIC" if any(brand in HEIC for brand in brands) else None


@cache
def _is_read(kind: str) -> bool:
    if kind == "AVIF":
        return bool(features.check("avif"))
    try:
        import pillow_heif  # an extra, and slow to load
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True
