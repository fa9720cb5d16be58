"""Pictures that a GPU cuts: worker processes send the part that a crop follows from, or a JPEG file that is decoded.

The GPU resamples as Pillow does, to the last bit; what it saves the workers is the resampling. nvJPEG decodes most JPEG
files, too, if it is asked to; what it does not decode as Pillow does, the workers decode as ever.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image, JpegImagePlugin
from torch import Tensor

from deepres.data.crops import REDUCING_GAP, Box, crop_box, cut, is_flipped, least_side, pixels, scaled_crop
from deepres.data.resampling import Cuts, needed, resampled
from deepres.data.rgb import is_upright, open_picture
from deepres.data.stream.index import Index
from deepres.data.stream.loader import Samples
from deepres.runtime.errors import InputError

MOST_PIXELS = 2**24  # larger JPEG files are decoded by the processor, at a half or less
TOGETHER = 2**26  # pixels that are decoded at once, which bounds the memory of decoded pictures
END = b"\xff\xd9"  # of a complete JPEG
SAMPLINGS = ((1, 1), (2, 1), (1, 2), (2, 2))  # of the brightness, against one of each colour


class Sample(NamedTuple):
    """A part of a picture, or a JPEG file.

    `content` is a part uint8 (3, h, w), or the bytes of a file, uint8 (bytes,). `size` is the width and height of the
    picture, `corner` where the part begins in it, `box` what becomes the crop, `flip` whether that is flipped.
    """

    content: Tensor
    size: tuple[int, int]
    corner: tuple[int, int]
    box: Box
    flip: bool
    label: int


class Uncut(NamedTuple):
    """A batch of n samples: their contents end to end, uint8, and facts of each.

    Pixels are in the order row, column, colour. `lengths` are int64 (n,), in bytes; `shapes` int64 (n, 2) the height
    and width of the part, or 0 for a file; `cuts` say where the crops lie; `labels` are int64 (n,).
    """

    contents: Tensor
    lengths: Tensor
    shapes: Tensor
    cuts: Cuts
    labels: Tensor


class DecodingError(Exception):
    """A JPEG that the GPU does not decode."""


@dataclass(frozen=True)
class Cropping:
    """Which crops are taken, and whether JPEG files are left to nvJPEG."""

    crop: int
    sides: tuple[int, int]
    nvjpeg: bool = False


def uncut(index: Index, cropping: Cropping, draws: int) -> Samples[Sample, Uncut]:
    """The samples of classification, whose crops are left to the GPU; see `labelled.labelled`."""
    return Samples(index, partial(sample, cropping), together, index.label, draws)


def sample(cropping: Cropping, encoded: bytes, draws: Sequence[float], label: int) -> Sample:
    """What the crop of `scale_crop_flip` follows from.

    Left to nvJPEG are upright colour photographs as cameras and the web have them: JPEG files that are complete,
    sequential and in YCbCr. Raises what `scale_crop_flip` raises.
    """
    crop, sides, flip = cropping.crop, cropping.sides, is_flipped(draws)
    if cropping.nvjpeg:
        with open_picture(encoded) as opened:
            if isinstance(opened, JpegImagePlugin.JpegImageFile) and _fits_gpu(opened) and encoded.endswith(END):
                box = crop_box(opened.size, draws, least_side(draws, sides), crop)
                file = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
                return Sample(file, opened.size, (0, 0), box, flip, label)
    image, box = scaled_crop(encoded, draws, crop, sides)
    if max(box[2] - box[0], box[3] - box[1]) >= 2 * REDUCING_GAP * crop:  # Pillow averages it first
        view = cut(image, box, crop)
        return Sample(view, (crop, crop), (0, 0), (0, 0, crop, crop), flip, label)
    left, top, right, bottom = needed(box, image.size, crop)
    return Sample(pixels(image.crop((left, top, right, bottom))), image.size, (left, top), box, flip, label)


def together(samples: list[Sample]) -> Uncut:
    """The batch of these samples."""
    contents, sizes, corners, boxes, flips, labels = zip(*samples, strict=True)
    flat = [content.permute(1, 2, 0).reshape(-1) if content.dim() == 3 else content for content in contents]
    shapes = [content.shape[1:] if content.dim() == 3 else (0, 0) for content in contents]
    cuts = Cuts(torch.tensor(boxes, dtype=torch.float32), *map(torch.tensor, (sizes, corners, flips)))
    lengths = torch.tensor([len(content) for content in flat])
    return Uncut(torch.cat(flat), lengths, torch.tensor(shapes), cuts, torch.tensor(labels))


def crops(batch: Uncut, crop: int, device: torch.device) -> Tensor:
    """The crops of the batch, uint8 (n, 3, crop, crop), channels-last in memory, on `device`.

    Raises `DecodingError` where a file does not decode.
    """
    files = batch.shapes[:, 0] == 0
    if not files.any():
        return resampled(_parts(batch, device), batch.cuts, crop)
    made = torch.empty((len(files), crop, crop, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    # What the processor decoded; then the files, as many at once as fit the memory.
    others = (~files).nonzero().flatten()
    if len(others):
        rest = _chosen(batch, others)
        made[others.to(device)] = resampled(_parts(rest, device), rest.cuts, crop)
    for places in _groups(files.nonzero().flatten(), batch.cuts.sizes):
        some = _chosen(batch, places)
        decoded = _decode(some.contents.split(some.lengths.tolist()), device)
        made[places.to(device)] = resampled(decoded, some.cuts, crop)
    return made


def require_nvjpeg(device: torch.device) -> None:
    """Raise `InputError` where this machine has no nvJPEG that decodes."""
    if device.type != "cuda":
        raise InputError(f"decode=gpu needs a GPU by CUDA, but the device is {device.type}; give --set decode=cpu")
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        _decode([torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)], device)
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


def _parts(batch: Uncut, device: torch.device) -> list[Tensor]:
    """The parts on `device`, uint8 (3, h, w), all views of one memory."""
    flat = batch.contents.to(device, non_blocking=True).split(batch.lengths.tolist())
    return [own.view(*shape, 3).permute(2, 0, 1) for own, shape in zip(flat, batch.shapes.tolist(), strict=True)]


def _chosen(batch: Uncut, places: Tensor) -> Uncut:
    """The samples at `places` of the batch."""
    if len(places) == len(batch.lengths):
        return batch
    flat = batch.contents.split(batch.lengths.tolist())
    contents = torch.cat([flat[place] for place in places.tolist()])
    cuts = Cuts(*(facts[places] for facts in batch.cuts))
    return Uncut(contents, batch.lengths[places], batch.shapes[places], cuts, batch.labels[places])


def _groups(places: Tensor, sizes: Tensor) -> Iterator[Tensor]:
    """The places in groups whose pictures have up to `TOGETHER` pixels."""
    start, total = 0, 0
    for end, own in enumerate(sizes[places].prod(1).tolist()):
        if end > start and total + own > TOGETHER:
            yield places[start:end]
            start, total = end, 0
        total += own
    yield places[start:]


def _decode(files: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The pictures of JPEG files (uint8, on the processor), uint8 (3, H, W) on `device`."""
    from torchvision import io as torchvision_io

    # torchvision writes by a stream of its own into memory that the current stream may still be reading.
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it points to TorchCodec, which is no dependency
            decoded = torchvision_io.decode_jpeg(list(files), torchvision_io.ImageReadMode.RGB, device)
    except RuntimeError as error:
        raise DecodingError(str(error).splitlines()[0]) from error
    return decoded  # pyright: ignore[reportReturnType]
