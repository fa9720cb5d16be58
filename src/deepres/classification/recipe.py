"""The recipes of classification, the paper's (Sec. 3.4 and 4.2) and ours, and the configuration of a run."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from deepres.models.catalog import entry
from deepres.training.config import Config
from deepres.training.recipe import LARGE, LONG, Bounds, Recipe, require

SIDES = (256, 480)  # pixels (Sec. 3.4)


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """A recipe with crops, augmentation and label smoothing.

    The defaults are the paper's for CIFAR-10 (Sec. 4.2).
    """

    bounds: ClassVar[Bounds] = {
        **Recipe.bounds,
        "pad": (0, 512),
        "crop": (0, 4_096),
        "sides": (1, 16_384),
        "colour": (0, LARGE),
    }

    label_smoothing: float = 0.0  # share of the target that is spread evenly over all classes
    augment: bool = True  # random crops and flips; for pictures on disk also colours
    pad: int = 4  # black pixels added on each side of an image in memory before its random crop
    alternate_flips: bool = False  # flip an image in memory in every second epoch instead of at random
    crop: int = 0  # side in pixels of random crops of pictures on disk (Sec. 3.4); 0: whole images in memory (Sec. 4.2)
    sides: tuple[int, ...] = SIDES  # with `crop`: range in pixels of the random shorter side of a picture
    colour: float = 0.0  # with `crop`: standard deviation of the colour augmentation

    def __post_init__(self) -> None:
        """Check the fields of this class, too."""
        super().__post_init__()
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "from 0 to below 1")
        fits = len(self.sides) == 2 and self.crop <= self.sides[0] <= self.sides[1]
        require(fits, "sides", list(self.sides), f"two numbers of pixels, from the crop ({self.crop}) up")
        require(not (self.alternate_flips and self.crop), "alternate_flips", True, "false where crops are taken")
        cropped, wanted = self.crop > 0, "left out where no crops are taken (crop=0)"
        require(cropped or not self.colour, "colour", self.colour, wanted)
        require(cropped or self.sides == SIDES, "sides", list(self.sides), wanted)
        require(self.augment or not self.crop, "augment", False, "true where crops are taken (crop=0: whole images)")


CIFAR = ClassificationRecipe()
CIFAR_DEEP = dataclasses.replace(CIFAR, name="cifar-deep", warmup="error")  # 110 layers and more (Sec. 4.2)
# Not in the paper: 20 layers reach the test error of the paper's recipe in less than a sixth of its time.
FAST = ClassificationRecipe(
    name="fast",
    iterations=9_000,
    lr=0.2,
    decay="linear",
    milestones=(),
    optimizer="muon",
    kernel_lr=0.025,
    nesterov=True,
    weight_decay=5e-4,
    warmup="linear",
    warmup_iterations=1_350,
    label_smoothing=0.1,
    pad=2,
    alternate_flips=True,
    evaluate_every=1_000,
)
IMAGENET = ClassificationRecipe(  # Sec. 3.4; patience, threshold and the number of averaged images are ours
    name="imagenet",
    iterations=600_000,
    batch_size=256,
    lr=0.1,
    decay="plateau",
    milestones=(),
    crop=224,
    colour=0.1,
    bn_average=100_000,
    evaluate_every=5_000,
)
FINETUNE = ClassificationRecipe(  # not in the paper: train existing weights on other images, at a tenth of the rate
    name="finetune",
    iterations=2_000,
    batch_size=64,
    lr=0.01,
    decay="linear",
    milestones=(),
    evaluate_every=200,
)
RECIPES = {recipe.name: recipe for recipe in (CIFAR, CIFAR_DEEP, FAST, IMAGENET, FINETUNE)}


def paper_recipe(depth: int, imagenet: bool = False) -> ClassificationRecipe:
    """The paper's recipe for a network of `depth` weighted layers: of Sec. 3.4 if `imagenet`, otherwise of Sec. 4.2.

    In Sec. 4.2, networks of 110 layers and more have a warm-up.
    """
    if imagenet:
        return IMAGENET
    return CIFAR_DEEP if depth >= 110 else CIFAR


def rate_for(network: str, recipe: ClassificationRecipe) -> ClassificationRecipe:
    """`recipe` for `network`: without BN, recipes with crops and `finetune` take a tenth of the learning rate.

    The paper's recipe (Sec. 3.4) then has 0.01, the learning rate of VGG and PReLU-net in their own papers.
    """
    lower = not entry(network).has_bn and (recipe.crop or recipe.name == FINETUNE.name)
    return dataclasses.replace(recipe, lr=recipe.lr / 10) if lower else recipe


@dataclass(frozen=True)
class ClassificationConfig(Config):
    """All settings that a run of classification can be repeated from."""

    bounds: ClassVar[Bounds] = {
        **Config.bounds,
        "image_size": (1, 4_096),
        "in_channels": (1, 1_024),
        "test_images": (0, LONG),
    }

    split: str | None = None  # such as `45k/5k`: the second part of the training images becomes the test set
    image_size: int | None = None  # side in pixels that every image is resized to; None: as it is
    in_channels: int | None = None  # channels of the input; None: as many as the images have
    test_images: int = 0  # test images for the curve, spread over the test set; 0: all; the last test always takes all
    decode: Literal["cpu", "gpu"] = "cpu"  # what decodes the JPEGs of training crops: the processor, or a GPU by nvJPEG
    recipe: ClassificationRecipe = CIFAR
