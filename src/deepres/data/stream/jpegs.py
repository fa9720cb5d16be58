"""JPEG files that a GPU decodes (nvJPEG) and cuts: worker processes only read them and choose the crops.

What nvJPEG does not decode, or not as Pillow does, is decoded by the workers as ever and joins the batch as a crop.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image, JpegImagePlugin
from torch import Tensor

from deepres.data.crops import Box, crop_box, is_flipped, least_side, scale_crop_flip
from deepres.data.resampling import resampled
from deepres.data.rgb import is_upright, open_picture
from deepres.data.stream.index import Index
from deepres.data.stream.loader import Samples
from deepres.runtime.errors import InputError

MOST_PIXELS = 2**24  # larger ones are decoded at a half or less by the processor
TOGETHER = 2**26  # pixels that are decoded at once, which bounds the memory of decoded pictures
END = b"\xff\xd9"  # of a complete JPEG
SAMPLINGS = ((1, 1), (2, 1), (1, 2), (2, 2))  # of the brightness, against one of each colour


class Jpeg(NamedTuple):
    """A JPEG file of width and height `size`, and the part of it that becomes a crop, flipped or not."""

    file: bytes
    size: tuple[int, int]
    box: Box
    flip: bool


class Undecoded(NamedTuple):
    """A batch of n pictures, k of them JPEG files that are not decoded yet.

    Files: their bytes end to end, uint8, their `lengths`, `sizes` int64 (k, 2), `boxes` float32 (k, 4), `flips` bool
    (k,), and their `places` int64 (k,) in the batch. `crops` uint8 (n - k, 3, crop, crop) are the others, in order.
    """

    files: Tensor
    lengths: Tensor
    sizes: Tensor
    boxes: Tensor
    flips: Tensor
    places: Tensor
    crops: Tensor
    labels: Tensor


Sample = tuple[Jpeg | Tensor, int]  # and its label


class DecodingError(Exception):
    """A JPEG that the GPU does not decode."""


def undecoded(
    index: Index, crop: int, sides: tuple[int, int], draws: int
) -> Samples[tuple[Jpeg | Tensor, int], Undecoded]:
    """The samples of classification, of which JPEG files are left to the GPU; see `labelled.labelled`."""
    return Samples(index, partial(_sample, crop, sides), partial(_together, crop), index.label, draws)


def jpeg_or_crop(encoded: bytes, draws: Sequence[float], crop: int, sides: tuple[int, int]) -> Jpeg | Tensor:
    """The file and its crop where the GPU decodes it as Pillow does, else the crop itself, of `scale_crop_flip`.

    Left to the GPU are upright colour photographs as cameras and the web have them: JPEG files that are complete,
    sequential and in YCbCr.
    """
    with open_picture(encoded) as opened:
        if isinstance(opened, JpegImagePlugin.JpegImageFile) and _fits_gpu(opened) and encoded.endswith(END):
            box = crop_box(opened.size, draws, least_side(draws, sides), crop)
            return Jpeg(encoded, opened.size, box, is_flipped(draws))
    return scale_crop_flip(encoded, draws, crop=crop, sides=sides)


def decoded(batch: Undecoded, device: torch.device) -> Tensor:
    """The crops of all pictures of the batch, uint8 (n, 3, crop, crop), channels-last in memory, on `device`.

    Raises `DecodingError` where a file does not decode.
    """
    crop = batch.crops.shape[-1]
    made = torch.empty((len(batch.labels), crop, crop, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    # The crops of the processor.
    others = torch.ones(len(batch.labels), dtype=torch.bool)
    others[batch.places] = False
    if len(batch.crops):
        made[others.nonzero().flatten().to(device)] = batch.crops.to(device)
    # The files, as many at once as fit the memory.
    files = list[Tensor](batch.files.split(batch.lengths.tolist()))
    for part in _parts(batch.sizes):
        pictures = _decode(files[part], device)
        made[batch.places[part].to(device)] = resampled(pictures, batch.boxes[part], batch.flips[part], crop)
    return made


def require_nvjpeg(device: torch.device) -> None:
    """Raise `InputError` where this machine has no nvJPEG that decodes."""
    if device.type != "cuda":
        raise InputError(f"decode=gpu needs a GPU by CUDA, but the device is {device.type}; give --set decode=cpu")
    sample = io.BytesIO()
    Image.new("RGB", (16, 16)).save(sample, "JPEG")
    try:
        _decode([torch.frombuffer(bytearray(sample.getvalue()), dtype=torch.uint8)], device)
    except (DecodingError, AttributeError) as error:  # later versions of torchvision have no decoders
        raise InputError(f"torchvision decodes no JPEG on this GPU ({error}); give --set decode=cpu") from None


def _fits_gpu(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether nvJPEG decodes a file as Pillow does, by the file's head."""
    numbers, across, down = zip(*((layer[0], layer[1], layer[2]) for layer in image.layer), strict=True)
    brightness, *colours = zip(across, down, strict=True)
    return (
        image.format == "JPEG"
        and image.mode == "RGB"
        and image.width * image.height <= MOST_PIXELS
        and numbers == (1, 2, 3)
        and image.info.get("adobe_transform", 1) == 1
        and brightness in SAMPLINGS
        and colours == [(1, 1), (1, 1)]
        and "progressive" not in image.info
        and is_upright(image)
    )


def _sample(crop: int, sides: tuple[int, int], encoded: bytes, draws: Sequence[float], label: int) -> Sample:
    return jpeg_or_crop(encoded, draws, crop, sides), label


def _together(crop: int, samples: list[Sample]) -> Undecoded:
    places = [place for place, (sample, _) in enumerate(samples) if isinstance(sample, Jpeg)]
    jpegs = [sample for sample, _ in samples if isinstance(sample, Jpeg)]
    crops = [sample.permute(1, 2, 0) for sample, _ in samples if isinstance(sample, Tensor)]
    stacked = torch.stack(crops) if crops else torch.empty((0, crop, crop, 3), dtype=torch.uint8)
    files = bytearray().join(jpeg.file for jpeg in jpegs)
    return Undecoded(
        files=torch.frombuffer(files, dtype=torch.uint8) if files else torch.empty(0, dtype=torch.uint8),
        lengths=torch.tensor([len(jpeg.file) for jpeg in jpegs], dtype=torch.int64),
        sizes=torch.tensor([jpeg.size for jpeg in jpegs], dtype=torch.int64).view(-1, 2),
        boxes=torch.tensor([jpeg.box for jpeg in jpegs], dtype=torch.float32).view(-1, 4),
        flips=torch.tensor([jpeg.flip for jpeg in jpegs], dtype=torch.bool),
        places=torch.tensor(places, dtype=torch.int64),
        crops=stacked.permute(0, 3, 1, 2),
        labels=torch.tensor([label for _, label in samples], dtype=torch.int64),
    )


def _parts(sizes: Tensor) -> Iterator[slice]:
    """Pieces of pictures one after the other, each with up to `TOGETHER` pixels."""
    start, pixels = 0, 0
    for place, own in enumerate(sizes.prod(1).tolist()):
        if place > start and pixels + own > TOGETHER:
            yield slice(start, place)
            start, pixels = place, 0
        pixels += own
    if start < len(sizes):
        yield slice(start, len(sizes))


def _decode(files: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The pictures of JPEG files (uint8, on the processor), uint8 (3, H, W) on `device`."""
    from torchvision import io as torchvision_io

    # torchvision writes by a stream of its own into memory that the current stream may still be reading.
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # its decoders are to go, but TorchCodec is no dependency
            return torchvision_io.decode_jpeg(list(files), torchvision_io.ImageReadMode.RGB, device)  # pyright: ignore[reportReturnType]
    except RuntimeError as error:
        raise DecodingError(str(error).splitlines()[0]) from error
