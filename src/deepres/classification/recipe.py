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
    """A recipe with what images are cut and how they are augmented, and the target of the loss.

    The defaults are the paper's for CIFAR-10 (Sec. 4.2).
    """

    bounds: ClassVar[Bounds] = {
        **Recipe.bounds,
        "pad": (0, 512),
        "crop": (0, 4_096),
        "sides": (1, 16_384),
        "colour": (0, LARGE),
    }

    label_smoothing: float = 0.0  # the part of the target that is spread over all classes
    augment: bool = True  # crops and flips (and of pictures on disk, colours)
    pad: int = 4  # pixels of black on each side of a resident image, out of which it is cut anew
    alternate_flips: bool = False  # a resident image is flipped in every second epoch, and not by chance
    crop: int = 0  # pixels a side of random crops out of pictures on disk (Sec. 3.4); 0: resident images (Sec. 4.2)
    sides: tuple[int, ...] = SIDES  # with `crop`: the least and the largest shorter side of a picture
    colour: float = 0.0  # with `crop`: standard deviation of the colour augmentation

    def __post_init__(self) -> None:
        """Check the fields of its own, too."""
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
# Not the paper's: made to reach, with 20 layers, the test error of the paper's recipe in less than a sixth of its time.
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
FINETUNE = ClassificationRecipe(  # not the paper's: trained weights go on, at a tenth of the rate, on other images
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
    """The paper's recipe for a network of `depth` weighted layers: that of Sec. 3.4 for `imagenet`, else of Sec. 4.2.

    There, 110 layers and more have a warm-up.
    """
    if imagenet:
        return IMAGENET
    return CIFAR_DEEP if depth >= 110 else CIFAR


def rate_for(network: str, recipe: ClassificationRecipe) -> ClassificationRecipe:
    """A recipe of crops (Sec. 3.4) for `network`: a tenth of the rate where it has no batch normalization to stand it.

    Of the paper's that is 0.01, the rate of VGG and PReLU-net in their own papers. So with `finetune`; any other recipe
    as it is.
    """
    lower = not entry(network).has_bn and (recipe.crop or recipe.name == FINETUNE.name)
    return dataclasses.replace(recipe, lr=recipe.lr / 10) if lower else recipe


@dataclass(frozen=True)
class ClassificationConfig(Config):
    """All that re-creates a run of classification."""

    bounds: ClassVar[Bounds] = {
        **Config.bounds,
        "image_size": (1, 4_096),
        "in_channels": (1, 1_024),
        "test_images": (0, LONG),
    }

    split: str | None = None  # 45k/5k: a part of the training images is held out as test images
    image_size: int | None = None  # pixels a side that every image is brought to; None: as they are
    in_channels: int | None = None  # None: as many as the images have
    test_images: int = 0  # the curve's test error over so many images, spread over all; 0 and the end: over all
    recipe: ClassificationRecipe = CIFAR
