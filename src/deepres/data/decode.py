"""Whole images of one size in tensors: the sizes of all pictures are read first, then threads decode them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepres.data.listing import PARTS, Part, Picture, check_label, digest_of, each, numbered, refusal
from deepres.data.manifest import Manifest
from deepres.data.resident import ImageSet
from deepres.data.resizing import centered, resized
from deepres.data.rgb import fault, is_gray, open_picture, seen_size, upright
from deepres.runtime.errors import InputError, Say

LIMIT_BYTES = 4 * 2**30


class NotResidentError(InputError):
    """Pictures that cannot be held in memory as whole images of one size."""


@dataclass(frozen=True)
class _Look:
    """The head of a picture: (width, height) after its orientation is applied, and whether it is grayscale."""

    size: tuple[int, int]
    gray: bool


@dataclass(frozen=True)
class _Bad:
    """Why a picture does not decode."""

    reason: str


@dataclass(frozen=True)
class Decoding:
    """How the pictures of the data set `name` in the folder `root` become whole images; `say` is told what takes time.

    With `image_size`, an image of another size is resized by its shorter side and cut at its centre, as torchvision's
    `Resize` and `CenterCrop` do it. With `skip_bad`, pictures that do not decode are left out.
    """

    name: str
    root: Path
    image_size: int | None
    skip_bad: bool
    say: Say


def decode_parts(
    how: Decoding, classes: tuple[str, ...] | None, pictures: Iterable[Picture]
) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """Training part, test part and class names ("0", "1", ... where `classes` is None). A part may be empty.

    Images are RGB, or have one channel where all of them are grayscale, as `rgb.upright` makes them. Raises
    `InputError` for a label out of range, a picture that does not decode (unless `skip_bad`), sizes that differ without
    `image_size`, and for more than 4 GiB of pixels.
    """
    # Refuse what cannot fit before all pictures are read, counting one channel at least.
    if how.image_size is not None and isinstance(pictures, Sequence):
        _check_memory(how.name, len(pictures) * how.image_size**2)
    # Read the size and the mode of each picture, which give the shape of the tensors.
    looks = _looks(how, classes, pictures)
    good = [look for look in looks.found if isinstance(look, _Look)]
    channels = 1 if all(look.gray for look in good) else 3
    height, width = _common_size(how, looks)
    _check_memory(how.name, len(good) * channels * height * width)
    # Decode all pictures into them.
    how.say(f"{how.name}: decoding {len(good):,} images of {width}x{height}")
    makers: dict[Part, _Maker] = {part: _Maker(looks.count(part), (channels, height, width)) for part in PARTS}
    _fill(makers, how, looks, pictures, mode="RGB" if channels == 3 else "L")
    return (
        makers["train"].image_set(),
        makers["test"].image_set(),
        numbered(looks.labels) if classes is None else classes,
    )


def _check_memory(name: str, needed: int) -> None:
    if needed > LIMIT_BYTES:
        raise NotResidentError(
            f"{name} would need {needed / 2**30:.1f} GiB of memory decoded, more than the limit of "
            f"{LIMIT_BYTES / 2**30:.0f} GiB; give a smaller --image-size"
        )


class _Maker:
    """Collects the images of one part in a tensor that has room for all of them."""

    def __init__(self, count: int, shape: tuple[int, int, int]):
        self.images = torch.empty((count, *shape), dtype=torch.uint8)
        self.labels: list[int] = []
        self.made: list[tuple[str, bytes]] = []  # name and digest of each
        self.skipped: dict[str, bytes] = {}

    def add(self, picture: Picture, pixels: Tensor, digest: bytes) -> None:
        self.images[len(self.labels)] = pixels
        self.labels.append(picture.label)
        self.made.append((picture.name, digest))

    def image_set(self) -> ImageSet:
        labels = torch.tensor(self.labels, dtype=torch.int64)
        every = [*self.made, *self.skipped.items()]
        manifest = Manifest.of((name for name, _ in every), (digest for _, digest in every))
        return ImageSet(self.images[: len(labels)], labels, tuple(self.skipped), manifest)


@dataclass(frozen=True)
class _Looks:
    """One entry a picture, in order."""

    found: list[_Look | _Bad]
    parts: list[Part]
    labels: list[int]

    def count(self, part: str) -> int:
        pairs = zip(self.parts, self.found, strict=True)
        return sum(1 for own, look in pairs if own == part and isinstance(look, _Look))


def _fill(makers: dict[Part, _Maker], how: Decoding, looks: _Looks, pictures: Iterable[Picture], mode: str) -> None:
    """Decode the pictures into the tensors of their parts."""

    def task(picture: Picture) -> tuple[Tensor | _Bad, bytes]:
        return _decode_picture(picture, mode=mode, image_size=how.image_size), digest_of(picture)

    decoded = each(pictures, task, how.say, how.name, "decoded")
    for look, (picture, (pixels, digest)) in zip(looks.found, decoded, strict=True):
        bad = look if isinstance(look, _Bad) else pixels
        if not isinstance(bad, _Bad):
            makers[picture.part].add(picture, bad, digest)
        elif how.skip_bad:
            makers[picture.part].skipped[picture.name] = digest
        else:
            raise refusal(how.root, picture.name, bad.reason)


def _looks(how: Decoding, classes: tuple[str, ...] | None, pictures: Iterable[Picture]) -> _Looks:
    """Look at every picture. Refuse labels out of range, a second size, and unless `skip_bad` what does not open."""
    looks, sizes = _Looks([], [], []), dict[tuple[int, int], str]()
    task = partial(_look, image_size=how.image_size)
    for picture, look in each(pictures, task, how.say, how.name, "looked at"):
        check_label(how.root, picture, classes)
        if isinstance(look, _Bad):
            if not how.skip_bad:
                raise refusal(how.root, picture.name, look.reason)
        elif look.size not in sizes:
            sizes[look.size] = picture.name
            _require_same(how.root, sizes)
        looks.found.append(look)
        looks.parts.append(picture.part)
        looks.labels.append(picture.label)
    return looks


def _common_size(how: Decoding, looks: _Looks) -> tuple[int, int]:
    """Height and width of all decoded images."""
    if how.image_size is not None:
        return how.image_size, how.image_size
    size = next((look.size for look in looks.found if isinstance(look, _Look)), None)
    if size is None:
        raise InputError(f"{how.root} has no picture that decodes; give a folder of images")
    width, height = size
    return height, width


def _require_same(root: Path, sizes: dict[tuple[int, int], str]) -> None:
    """Raise `InputError` for a second size; `sizes` has the name of the first picture of each."""
    if len(sizes) > 1:
        two = " and ".join(f"{name} {width}x{height}" for (width, height), name in sizes.items())
        raise NotResidentError(
            f"{root} has pictures of different sizes ({two}); give --image-size 32, or another (networks of Table 1, "
            "as resnet18, take crops of pictures as they are, and deepres data check reads them all)"
        )


def _look(picture: Picture, image_size: int | None) -> _Look | _Bad:
    """The head of a picture. Pillow decodes a PNG for its orientation, which is not needed with an `image_size`."""
    try:
        with open_picture(picture.content) as image:
            size = seen_size(image) if image_size is None else (image_size, image_size)
            return _Look(size, is_gray(image))
    except InputError:  # a wrong limit of pixels
        raise
    except Exception as error:  # Pillow's decoders raise almost any exception for a damaged file
        return _Bad(fault(error))


def _decode_picture(picture: Picture, *, mode: str, image_size: int | None) -> Tensor | _Bad:
    """One picture as a uint8 tensor (C, H, W)."""
    try:
        with open_picture(picture.content) as opened:
            image = upright(opened)
            if image.mode != mode:
                image = image.convert(mode)
            if image_size is not None and image.size != (image_size, image_size):
                image = centered(resized(image, image_size), image_size)
            # not torchvision's pil_to_tensor, which takes seconds to load
            return torch.from_numpy(np.atleast_3d(np.array(image))).movedim(2, 0).contiguous()
    except InputError:
        raise
    except Exception as error:  # as above
        return _Bad(fault(error))


def pixels_or_fault(picture: Picture, image_size: int | None = None) -> Tensor | str:
    """One picture as RGB, uint8 (3, H, W), made as by `decode_parts`, or the reason why it does not decode."""
    pixels = _decode_picture(picture, mode="RGB", image_size=image_size)
    return pixels.reason if isinstance(pixels, _Bad) else pixels
