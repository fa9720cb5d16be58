"""Whole images of one size in tensors: the sizes of all pictures are read first, then threads decode them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepres.data.listing import PARTS, Part, Picture, check_label, digest_of, each, numbered, refusal
from deepres.data.manifest import Manifest
from deepres.data.resident import ImageSet
from deepres.data.resizing import centered, resized
from deepres.data.rgb import fault, is_gray, open_picture, seen_size, upright
from deepres.runtime.errors import InputError, Say

LIMIT_BYTES = 4 * 2**30
T = TypeVar("T")


class NotResidentError(InputError):
    """Pictures that cannot be held in memory as whole images of one size."""


class _Look(NamedTuple):
    """The head of a picture: (width, height) after its orientation is applied, and whether it is grayscale.

    `fault` says why the picture does not decode; None where its head can be read.
    """

    part: Part
    label: int
    size: tuple[int, int] = (0, 0)
    gray: bool = True
    fault: str | None = None


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
    good = [look for look in looks if look.fault is None]
    channels = 1 if all(look.gray for look in good) else 3
    height, width = _common_size(how, good)
    _check_memory(how.name, len(good) * channels * height * width)
    # Decode all pictures into them.
    how.say(f"{how.name}: decoding {len(good):,} images of {width}x{height}")
    shape = channels, height, width
    makers: dict[Part, _Maker] = {part: _Maker(sum(look.part == part for look in good), shape) for part in PARTS}
    _fill(makers, how, looks, pictures, mode="RGB" if channels == 3 else "L")
    train, test = (makers[part].image_set() for part in PARTS)
    return train, test, numbered(look.label for look in looks) if classes is None else classes


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


def _fill(
    makers: dict[Part, _Maker], how: Decoding, looks: list[_Look], pictures: Iterable[Picture], mode: str
) -> None:
    """Decode the pictures into the tensors of their parts."""

    def task(picture: Picture) -> tuple[Tensor | str, bytes]:
        return pixels_or_fault(picture, how.image_size, mode), digest_of(picture)

    decoded = each(pictures, task, how.say, how.name, "decoded")
    for look, (picture, (pixels, digest)) in zip(looks, decoded, strict=True):
        made = pixels if look.fault is None else look.fault
        if isinstance(made, Tensor):
            makers[picture.part].add(picture, made, digest)
        elif how.skip_bad:
            makers[picture.part].skipped[picture.name] = digest
        else:
            raise refusal(how.root, picture.name, made)


def _looks(how: Decoding, classes: tuple[str, ...] | None, pictures: Iterable[Picture]) -> list[_Look]:
    """Look at every picture. Refuse labels out of range, a second size, and unless `skip_bad` what does not open."""
    looks, sizes = list[_Look](), dict[tuple[int, int], str]()
    task = partial(_look, image_size=how.image_size)
    for picture, look in each(pictures, task, how.say, how.name, "looked at"):
        check_label(how.root, picture, classes)
        if look.fault is not None:
            if not how.skip_bad:
                raise refusal(how.root, picture.name, look.fault)
        elif look.size not in sizes:
            sizes[look.size] = picture.name
            _require_same(how.root, sizes)
        looks.append(look)
    return looks


def _common_size(how: Decoding, good: list[_Look]) -> tuple[int, int]:
    """Height and width of all decoded images."""
    if how.image_size is not None:
        return how.image_size, how.image_size
    if not good:
        raise InputError(f"{how.root} has no picture that decodes; give a folder of images")
    width, height = good[0].size
    return height, width


def _require_same(root: Path, sizes: dict[tuple[int, int], str]) -> None:
    """Raise `InputError` for a second size; `sizes` has the name of the first picture of each."""
    if len(sizes) > 1:
        two = " and ".join(f"{name} {width}x{height}" for (width, height), name in sizes.items())
        raise NotResidentError(
            f"{root} has pictures of different sizes ({two}); give --image-size 32, or another (networks of Table 1, "
            "as resnet18, take crops of pictures as they are, and deepres data check reads them all)"
        )


def _look(picture: Picture, image_size: int | None) -> _Look:
    """The head of a picture. Pillow decodes a PNG for its orientation, which is not needed with an `image_size`."""

    def head(image: Image.Image) -> tuple[tuple[int, int], bool]:
        return seen_size(image) if image_size is None else (image_size, image_size), is_gray(image)

    found = _or_fault(picture, head)
    size, gray, fault = ((0, 0), True, found) if isinstance(found, str) else (*found, None)
    return _Look(picture.part, picture.label, size, gray, fault)


def pixels_or_fault(picture: Picture, image_size: int | None = None, mode: str = "RGB") -> Tensor | str:
    """One picture as uint8 (C, H, W), made as by `decode_parts`, or the reason why it does not decode.

    C is 3 with the `mode` RGB, and 1 with L.
    """

    def pixels(opened: Image.Image) -> Tensor:
        image = upright(opened)
        if image.mode != mode:
            image = image.convert(mode)
        if image_size is not None and image.size != (image_size, image_size):
            image = centered(resized(image, image_size), image_size)
        # not torchvision's pil_to_tensor, which takes seconds to load
        return torch.from_numpy(np.atleast_3d(np.array(image))).movedim(2, 0).contiguous()

    return _or_fault(picture, pixels)


def _or_fault(picture: Picture, task: Callable[[Image.Image], T]) -> T | str:
    """The result of `task` on the opened picture, or the reason why the picture does not decode."""
    try:
        with open_picture(picture.content) as image:
            return task(image)
    except InputError:  # a wrong limit of pixels
        raise
    except Exception as error:  # Pillow's decoders raise almost any exception for a damaged file
        return fault(error)
