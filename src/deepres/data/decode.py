"""From pictures to whole tensors: looked at once for size and mode, then decoded once, in a thread pool."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepres.data.listing import Part, Picture, check_label, digest_of, each, numbered, refusal
from deepres.data.manifest import Manifest
from deepres.data.resident import ImageSet
from deepres.data.resizing import centered, resized
from deepres.data.rgb import fault, is_gray, open_picture, seen_size, upright
from deepres.runtime.errors import InputError
from deepres.runtime.say import Say

LIMIT_BYTES = 4 * 2**30


class NotResidentError(InputError):
    """Pictures that cannot be held in memory as whole images of one size."""


@dataclass(frozen=True)
class _Look:
    """What the head of a picture tells: (width, height) as it is to be seen, and whether it is grayscale."""

    size: tuple[int, int]
    gray: bool


@dataclass(frozen=True)
class _Bad:
    """Why a picture does not decode."""

    reason: str


def decode_parts(
    name: str,
    root: Path,
    classes: tuple[str, ...] | None,
    pictures: Iterable[Picture],
    *,
    image_size: int | None,
    skip_bad: bool,
    say: Say,
) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """Training part, test part and class names ("0", "1", ... where `classes` is None).

    Images are RGB, or have one channel where all of them are grayscale, as `rgb.upright` makes them. With
    `image_size`, an image of another size is resized by its shorter side and cut at its centre, as torchvision's
    `Resize` and `CenterCrop` do it. Raises `InputError` for a label out of range, a picture that does not decode
    (unless `skip_bad`), sizes that differ without `image_size`, and for more than 4 GiB of pixels. A part may be empty.
    """
    if image_size is not None and isinstance(pictures, Sequence):
        _check_memory(name, len(pictures) * image_size**2)  # of one channel at least: refused before all are read
    looks = _looks(root, classes, pictures, skip_bad, say, name, image_size)
    if classes is None:
        classes = numbered(looks.labels)
    good = [look for look in looks.found if isinstance(look, _Look)]
    channels = 1 if all(look.gray for look in good) else 3
    height, width = _common_size(root, looks, image_size)
    _check_memory(name, len(good) * channels * height * width)
    say(f"{name}: decoding {len(good):,} images of {width}x{height}")
    makers = {part: _Maker(looks.count(part), (channels, height, width)) for part in ("train", "test")}
    mode = "RGB" if channels == 3 else "L"

    def task(picture: Picture) -> tuple[Tensor | _Bad, bytes]:
        return _decode_picture(picture, mode=mode, image_size=image_size), digest_of(picture)

    for index, (picture, (pixels, digest)) in enumerate(each(pictures, task, say, name, "decoded")):
        look = looks.found[index]
        bad = look if isinstance(look, _Bad) else pixels
        if isinstance(bad, _Bad):
            if not skip_bad:
                raise refusal(root, picture.name, bad.reason)
            makers[picture.part].skipped[picture.name] = digest
        else:
            makers[picture.part].add(picture, bad, digest)
    return makers["train"].image_set(), makers["test"].image_set(), classes


def _check_memory(name: str, needed: int) -> None:
    if needed > LIMIT_BYTES:
        raise NotResidentError(
            f"{name} would need {needed / 2**30:.1f} GiB of memory decoded, more than the limit of "
            f"{LIMIT_BYTES / 2**30:.0f} GiB; give a smaller --image-size"
        )


class _Maker:
    """Collects the images of one part in a tensor of full length."""

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


def _looks(
    root: Path,
    classes: tuple[str, ...] | None,
    pictures: Iterable[Picture],
    skip_bad: bool,
    say: Say,
    name: str,
    image_size: int | None,
) -> _Looks:
    """Look at every picture; refuse labels out of range, unless `skip_bad` what does not open, and a second size."""
    looks, sizes = _Looks([], [], []), dict[tuple[int, int], str]()
    task = partial(_look, image_size=image_size)
    for picture, look in each(pictures, task, say, name, "looked at"):
        check_label(root, picture, classes)
        if isinstance(look, _Bad):
            if not skip_bad:
                raise refusal(root, picture.name, look.reason)
        elif look.size not in sizes:
            sizes[look.size] = picture.name
            _require_same(root, sizes)
        looks.found.append(look)
        looks.parts.append(picture.part)
        looks.labels.append(picture.label)
    return looks


def _common_size(root: Path, looks: _Looks, image_size: int | None) -> tuple[int, int]:
    """Height and width of all decoded images."""
    if image_size is not None:
        return image_size, image_size
    sizes = [look.size for look in looks.found if isinstance(look, _Look)]
    if not sizes:
        raise InputError(f"{root} has no picture that decodes; give a folder of images")
    width, height = sizes[0]
    return height, width


def _require_same(root: Path, sizes: dict[tuple[int, int], str]) -> None:
    """Refuse a second size; `sizes` has the first picture of each."""
    if len(sizes) > 1:
        two = " and ".join(f"{name} {width}x{height}" for (width, height), name in sizes.items())
        raise NotResidentError(
            f"{root} has pictures of different sizes ({two}); give --image-size 32, or another (networks of Table 1, "
            "as resnet18, take crops of pictures as they are, and deepres data check reads them all)"
        )


def _look(picture: Picture, image_size: int | None) -> _Look | _Bad:
    """Of a PNG, Pillow tells the orientation only once it is decoded: not where the size will be another anyway."""
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
    """One picture as RGB, uint8 (3, H, W), made as `decode_parts` makes it; of one that does not decode, why, in short."""
    pixels = _decode_picture(picture, mode="RGB", image_size=image_size)
    return pixels.reason if isinstance(pixels, _Bad) else pixels
