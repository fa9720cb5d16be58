"""The recipes of classification: the paper's (Sec. 3.4 and 4.2), and ours; and the configuration of such a run."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from deepres.models.catalog import entry
from deepres.training.config import Config
from deepres.training.recipe import LARGE, LONG, Bounds, Recipe, require

SIDES = (256, 480)  # Sec. 3.4


@dataclass(frozen=True)
class ClassificationRecipe(Recipe):
    """A recipe with the cropping and augmentation of images, and the target of the loss.

    The defaults are the paper's for CIFAR-10 (Sec. 4.2).
    """

    bounds: ClassVar[Bounds] = {
        **Recipe.bounds,
        "pad": (0, 512),
        "crop": (0, 4_096),
        "sides": (1, 16_384),
        "colour": (0, LARGE),
    }

    label_smoothing: float = 0.0  # share of the target that is spread over all classes
    augment: bool = True  # random crops and flips; for pictures on disk also colours
    pad: int = 4  # black pixels added on each side of a resident image before it is randomly cropped
    alternate_flips: bool = False  # flip a resident image in every second epoch instead of by chance
    crop: int = 0  # pixels a side of random crops from pictures on disk (Sec. 3.4); 0: resident images (Sec. 4.2)
    sides: tuple[int, ...] = SIDES  # with `crop`: smallest and largest shorter side that a picture is resized to
    colour: float = 0.0  # with `crop`: standard deviation of the colour augmentation

    def __post_init__(self) -> None:
        """Check the fields that classification adds. Raises `InputError` for one that is wrong."""
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
CIFAR_DEEP = dataclasses.replace(CIFAR, name="cifar-deep", warmup="error")  # 110 layers and deeper
# Not the paper's: with 20 layers it reaches the test error of the paper's recipe in less than a sixth of the time.
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
FINETUNE = (
    ClassificationRecipe(  # not the paper's: trains trained weights further on other images, at a tenth of the rate
        name="finetune",
        iterations=2_000,
        batch_size=64,
        lr=0.01,
        decay="linear",
        milestones=(),
        evaluate_every=200,
    )
)
RECIPES = {recipe.name: recipe for recipe in (CIFAR, CIFAR_DEEP, FAST, IMAGENET, FINETUNE)}


def paper_recipe(depth: int, imagenet: bool = False) -> ClassificationRecipe:
    """The paper's recipe for a network of `depth` weighted layers: that of Sec. 3.4 for `imagenet`, else of Sec. 4.2.

    Of Sec. 4.2, networks of 110 layers and more have a warm-up.
    """
    if imagenet:
        return IMAGENET
    return CIFAR_DEEP if depth >= 110 else CIFAR


def rate_for(network: str, recipe: ClassificationRecipe) -> ClassificationRecipe:
    """`recipe` for `network`: with a tenth of the learning rate where a network without batch normalization needs it.

    That holds for recipes with crops (Sec. 3.4), whose rate becomes 0.01 as for VGG and PReLU-net in their own papers,
    and for `finetune`. Any other recipe is returned unchanged.
    """
    lower = not entry(network).has_bn and (recipe.crop or recipe.name == FINETUNE.name)
    return dataclasses.replace(recipe, lr=recipe.lr / 10) if lower else recipe


@dataclass(frozen=True)
class ClassificationConfig(Config):
    """The configuration that re-creates a run of classification."""

    bounds: ClassVar[Bounds] = {
        **Config.bounds,
        "image_size": (1, 4_096),
        "in_channels": (1, 1_024),
        "test_images": (0, LONG),
    }

    split: str | None = None  # 45k/5k: holds out a part of the training images as test images
    image_size: int | None = None  # pixels a side that every image is resized and cropped to; None: unchanged
    in_channels: int | None = None  # None: as many as the images have
    test_images: int = 0  # test images, evenly spaced, for the curve's test error; 0, and at the end: all
    recipe: ClassificationRecipe = CIFAR
