"""Pictures with boxes as a network trains on them: mirrored, resized, of other colours, in worker processes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from deepres.data.boxes.index import BoxIndex
from deepres.data.boxes.truth import Truth
from deepres.data.crops import whole
from deepres.data.stream.loader import Reading, Samples, in_order
from deepres.detection.cached import Proposals
from deepres.detection.recipe import DetectionConfig
from deepres.detection.targets import Objects
from deepres.models.detection.images import fitted, fitted_size
from deepres.runtime.errors import InputError
from deepres.runtime.masks import mirrored

DRAWS, BITS = 2, 24  # random numbers of a picture, and the bits of each, that seed its augmentation
# Brightness, contrast, saturation and hue as SSD has them; its exchange of colour channels is left out.
COLOUR = v2.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05)
MEAN_OF = 1_000  # pictures, at most, that the mean colour is over


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture as the network sees it, uint8 (3, H, W), its objects in these pixels, and its `size` on disk.

    `size` is (height, width) of the upright picture. `proposals` (k, 4), in the pixels of the network, are there where
    another detector made them.
    """

    image: Tensor
    objects: Objects
    size: tuple[int, int]
    proposals: Tensor | None = None


@dataclass(frozen=True)
class Augmentation:
    """How a picture becomes a `Scene`: the shorter side is one of `sides`, the longer one at most `longest`."""

    sides: tuple[int, ...]
    longest: int
    flip: bool
    colour: float
    keep_difficult: bool

    @classmethod
    def of(cls, config: DetectionConfig) -> "Augmentation":
        """That of a run; the longest side grows with the others."""
        recipe = config.recipe
        sides = recipe.sides or (config.side,)
        longest = round(config.longest * max(sides) / config.side) if recipe.sides else config.longest
        return cls(sides, longest, recipe.flip, recipe.colour, config.keep_difficult)


Target = tuple[Truth, Tensor | None]  # the objects of a picture, and its proposals where they are given


@dataclass(frozen=True, eq=False)
class _Targets:
    """The targets of the pictures of an index."""

    index: BoxIndex
    proposals: Proposals | None

    def __call__(self, place: int) -> Target:
        return self.index.truth(place), None if self.proposals is None else self.proposals.of(place)


def training_samples(
    index: BoxIndex, augmentation: Augmentation, proposals: Proposals | None = None
) -> Samples[Scene, list[Scene]]:
    """The samples of training; the pictures of a batch are all upright or all landscape."""
    make = partial(augmented, augmentation)
    upright = (index.sizes[:, 1] > index.sizes[:, 0]).long()
    return Samples(index.pictures, make, _listed, _Targets(index, proposals), DRAWS, upright)


def test_samples(index: BoxIndex, side: int, longest: int) -> Samples[Scene, list[Scene]]:
    """The samples of a test: whole pictures, resized."""
    return Samples(index.pictures, partial(plain, side, longest), _listed, index.truth)


def largest(index: BoxIndex, how: Augmentation, count: int) -> tuple[int, int]:
    """The height and width of the largest batch of `count` pictures that training can show, padded to one size.

    The last batch of an epoch may hold upright and landscape pictures.
    """
    shapes = [
        fitted_size((high, wide), max(how.sides), how.longest) for wide, high in index.sizes.unique(dim=0).tolist()
    ]
    if count == 1:
        return max(shapes, key=math.prod)
    return max(height for height, _ in shapes), max(width for _, width in shapes)


def augmented(how: Augmentation, encoded: bytes, draws: Sequence[float], target: Target) -> Scene:
    """The training view of an encoded picture, a function of `draws` alone."""
    truth, proposals = target
    image = whole(encoded)
    size = (image.shape[1], image.shape[2])
    objects = _trained_on(truth, how.keep_difficult)
    every = [objects.boxes, objects.crowds, *([] if proposals is None else [proposals])]
    all_boxes = torch.cat(every)
    boxes: Any = BoundingBoxes(all_boxes, format=BoundingBoxFormat.XYXY, canvas_size=size)  # pyright: ignore[reportCallIssue]
    # torchvision's transforms draw from the processor's generator, which is seeded for this picture; not that of a GPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            sum(int(draw * 2**BITS) << BITS * place for place, draw in enumerate(draws))
        )
        side = how.sides[int(torch.randint(len(how.sides), ()))]
        if flipped := how.flip and bool(torch.rand(()) < 0.5):
            image, boxes = functional.horizontal_flip(image), functional.horizontal_flip(boxes)
        if torch.rand(()) < how.colour:
            image = COLOUR(image)
    height, width = fitted_size(size, side, how.longest)
    moved = functional.resize(boxes, [height, width]).as_subclass(Tensor).split([len(own) for own in every])
    masks = mirrored(objects.masks) if flipped and objects.masks is not None else objects.masks
    seen = Objects(moved[0], objects.labels, moved[1], masks)
    return Scene(fitted(image, side, how.longest), seen, size, None if proposals is None else moved[2])


def plain(side: int, longest: int, encoded: bytes, draws: Sequence[float], truth: Truth) -> Scene:
    """The whole picture, resized. Its objects are left out: a test compares with those on disk."""
    image = whole(encoded)
    none = truth.boxes.new_zeros(0, 4)
    size = (image.shape[1], image.shape[2])
    return Scene(fitted(image, side, longest), Objects(none, truth.labels[:0], none), size)


def mean_colour(index: BoxIndex, reading: Reading) -> Tensor:
    """The mean of each channel of the pictures, float32 (3, 1, 1) in 0..1; of many pictures, of a thousand of them.

    Each picture counts the same. Raises `InputError` where none decodes.
    """
    count = min(len(index), MEAN_OF)
    places = torch.arange(count) * len(index) // max(count, 1)
    total, seen = torch.zeros(3, dtype=torch.float64), 0
    for answer in in_order(test_samples(index, 64, 64), 16, reading, places):
        for scene in answer.batch or []:
            total += scene.image.double().mean((1, 2))
            seen += 1
    if not seen:
        raise InputError(f"{index.pictures.root} has no picture that decodes; give a folder of pictures")
    return (total / (255 * seen)).float()[:, None, None]


def _trained_on(truth: Truth, keep_difficult: bool) -> Objects:
    """The objects that are trained on: crowds are areas to leave out, and difficult ones are left out altogether."""
    own = ~truth.crowd if keep_difficult else ~(truth.crowd | truth.difficult)
    masks = None if truth.masks is None else truth.masks[own]
    return Objects(truth.boxes[own], truth.labels[own], truth.boxes[truth.crowd], masks)


def _listed(samples: list[Any]) -> list[Any]:
    return samples
