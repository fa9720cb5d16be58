"""Pictures with one class as a localizer is trained on them: random crops of Sec. 3.4, or regions warped to a crop."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from deepres.data.boxes.index import BoxIndex
from deepres.data.crops import DRAWS, cut, is_flipped, scaled_crop
from deepres.data.rgb import open_picture, upright
from deepres.data.stream.loader import Samples
from deepres.detection.cached import Proposals
from deepres.localization.recipe import LocalizationConfig
from deepres.localization.targets import rule_of
from deepres.models.detection.boxes import overlaps

POSITIVE = rule_of("rcnn", 1).positive


class Crop(NamedTuple):
    """What a localizer sees, uint8 (3, crop, crop), and its objects (n, 4) in these pixels; n may be 0.

    The boxes are whole, also where they reach out of the crop.
    """

    image: Tensor
    boxes: Tensor
    label: int


class Crops(NamedTuple):
    """N crops: uint8 (N, 3, crop, crop), channels-last; boxes (N, M, 4), rows of zeros being none; labels (N,)."""

    images: Tensor
    boxes: Tensor
    labels: Tensor


class Target(NamedTuple):
    """The objects (n, 4) of a picture of `size` (width, height), upright; their class, and its proposals (k, 4)."""

    boxes: Tensor
    size: tuple[int, int]
    label: int
    regions: Tensor | None


@dataclass(frozen=True)
class Cropping:
    """How a picture becomes a crop."""

    crop: int
    sides: tuple[int, int]
    visible: float
    positive_share: float

    @classmethod
    def of(cls, config: LocalizationConfig) -> "Cropping":
        """That of a run."""
        recipe = config.recipe
        return cls(config.crop, (recipe.sides[0], recipe.sides[1]), recipe.visible, recipe.positive_share)


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of the pictures of an index."""

    index: BoxIndex
    proposals: Proposals | None

    def __call__(self, place: int) -> Target:
        """That of one picture."""
        width, height = self.index.sizes[place].tolist()
        regions = None if self.proposals is None else self.proposals.of(place)
        return Target(self.index.truth(place).boxes, (width, height), self.index.pictures.label(place), regions)


def training_samples(index: BoxIndex, how: Cropping, proposals: Proposals | None = None) -> Samples[Crop, Crops]:
    """The samples of training: random crops, or with `proposals` warped regions of these."""
    make = partial(random_crop if proposals is None else random_region, how)
    return Samples(index.pictures, make, stacked, Targets(index, proposals), DRAWS)


def random_crop(how: Cropping, encoded: bytes, draws: Sequence[float], target: Target) -> Crop:
    """A random crop of Sec. 3.4, as `data.crops.scale_crop_flip` has it, and the objects that are to be seen in it."""
    image, part = scaled_crop(encoded, draws, how.crop, how.sides)
    view = cut(image, part, how.crop)
    # The part in pixels of the whole picture: a JPEG may have been decoded at a fraction of its size.
    part = torch.tensor(part) * (torch.tensor(target.size) / torch.tensor(image.size)).repeat(2)
    boxes = within(target.boxes, part, how.crop)
    seen = overlaps(boxes, boxes.new_tensor([[0, 0, how.crop, how.crop]]))[:, 0]
    return _flipped(Crop(view, boxes[seen >= max(how.visible, 1e-6)], target.label), draws)


def random_region(how: Cropping, encoded: bytes, draws: Sequence[float], target: Target) -> Crop:
    """One region of a picture, warped to a crop: with a chance of `positive_share` one on an object, else beside it.

    The true boxes are among the regions, so that there always is one on an object. Where none lies beside it, that
    takes its place.
    """
    assert target.regions is not None
    regions = torch.cat([target.boxes, target.regions])
    on = (box_iou(regions, target.boxes) >= POSITIVE).any(1)
    wanted = on if draws[0] < how.positive_share or on.all() else ~on
    places = wanted.nonzero().flatten()
    region = solid(regions[places[int(draws[1] * len(places))]], target.size)
    with open_picture(encoded) as opened:
        view = warped(upright(opened), region, how.crop)
    return _flipped(Crop(view, within(target.boxes, region, how.crop), target.label), draws)


def warped(image: Image.Image, region: Tensor, crop: int) -> Tensor:
    """The region (4,) of an upright picture, warped to uint8 (3, crop, crop): its sides change apart (R-CNN)."""
    left, top, right, bottom = solid(region, image.size).tolist()
    return cut(image, (left, top, right, bottom), crop)


def solid(region: Tensor, size: tuple[int, int]) -> Tensor:
    """A region (4,) within a picture of `size` (width, height), a pixel wide and high at least."""
    low = torch.minimum(region[:2].clamp(min=0), torch.tensor(size) - 1)
    high = torch.minimum(torch.maximum(region[2:], low + 1), torch.tensor(size))
    return torch.cat([low, high])


def within(boxes: Tensor, part: Tensor, crop: int) -> Tensor:
    """Boxes (n, 4) of a picture in the pixels of its `part` (4,) that was resized to a square of `crop` pixels."""
    return (boxes - part[:2].repeat(2)) * (crop / (part[2:] - part[:2])).repeat(2)


def stacked(samples: list[Crop]) -> Crops:
    """A batch, in the memory order of decoded pictures; boxes are filled up with rows of zeros."""
    images = torch.stack([own.image.permute(1, 2, 0) for own in samples]).permute(0, 3, 1, 2)
    boxes = torch.nn.utils.rnn.pad_sequence([own.boxes for own in samples], batch_first=True)
    boxes = boxes if boxes.shape[1] else boxes.new_zeros(len(samples), 1, 4)
    return Crops(images, boxes, torch.tensor([own.label for own in samples], dtype=torch.int64))


def _flipped(seen: Crop, draws: Sequence[float]) -> Crop:
    """The crop, or its mirror image by chance."""
    if not is_flipped(draws):
        return seen
    left, top, right, bottom = seen.boxes.unbind(1)
    side = seen.image.shape[-1]
    return Crop(seen.image.flip(-1), torch.stack([side - right, top, side - left, bottom], 1), seen.label)
