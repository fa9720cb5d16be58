"""The recipe of localization and the configuration of a run (Appendix C; what the paper does not give is ours)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from deepres.models.localization.plan import BOUNDS, LocalizerPlan
from deepres.runtime.figures import LOCALIZATION
from deepres.training.config import Config
from deepres.training.recipe import LARGE, LONG, Bounds, Recipe, require

PLAN = LocalizerPlan()


@dataclass(frozen=True)
class LocalizationRecipe(Recipe):
    """A recipe with the crops of Sec. 3.4 and the samples of Appendix C. Rate and length are ours.

    "256 images", of which "8 anchors are randomly sampled"; an `rcnn` has 256 regions, one of each of 256 pictures.
    """

    bounds: ClassVar[Bounds] = {
        **Recipe.bounds,
        "sides": (1, 16_384),
        "colour": (0, LARGE),
        "anchors": (1, 100_000),
        "regions": (1, 10_000),
        **dict.fromkeys(("positive_share", "visible"), (0.0, 1.0)),
    }

    name: str = "localizer"
    iterations: int = 150_000
    batch_size: int = 256
    lr: float = 0.01
    milestones: tuple[int, ...] = (100_000,)
    evaluate_every: int = 5_000
    sides: tuple[int, ...] = (256, 480)  # range in pixels of the random shorter side of a picture
    colour: float = 0.1  # standard deviation of the colour augmentation
    anchors: int = 8  # of an image in the losses, half of them positive at most
    visible: float = 0.25  # share of an object that lies in a crop at least; else it counts as none there
    regions: int = 200  # of a picture, proposed for its class, of which an `rcnn` is trained on one at a time
    positive_share: float = 0.25  # of the regions of a batch, in the mean

    def __post_init__(self) -> None:
        """Check the fields of this class, too."""
        super().__post_init__()
        fits = len(self.sides) == 2 and self.sides[0] <= self.sides[1]
        require(fits, "sides", list(self.sides), "two numbers of pixels, the smaller one first")
        require(self.warmup != "error", "warmup", self.warmup, "none or linear: a localizer has no training error")


LOCALIZER = LocalizationRecipe()
# Not in the paper: what `choose` finds for the data takes the place of length, batch and rate.
AUTO = dataclasses.replace(LOCALIZER, name="auto")
FINETUNE = dataclasses.replace(LOCALIZER, name="finetune")
RECIPES = {recipe.name: recipe for recipe in (LOCALIZER, AUTO, FINETUNE)}
CHOSEN = (None, AUTO.name, FINETUNE.name)  # recipes, or none, for which `choose` is asked


@dataclass(frozen=True)
class LocalizationConfig(Config):
    """All settings that a run of localization can be repeated from."""

    bounds: ClassVar[Bounds] = {**Config.bounds, **BOUNDS, "test_images": (0, LONG)}

    task: ClassVar[str] = LOCALIZATION
    compile: str = "off"
    freeze: tuple[str, ...] | None = ("bn",)  # stages that stay fixed; `bn`: all BN, as in Appendix A
    train_set: str | None = None  # names of the image sets that are trained on; None: by the layout of the data
    test_set: str | None = None
    rpn: str | None = None  # a run whose proposals an `rcnn` is trained on; None: this run trains an RPN
    test_images: int = 0  # test images for the curve, spread over the test set; 0: all; the last test always takes all
    anchor_scales: tuple[float, ...] = PLAN.anchor_scales
    anchor_ratios: tuple[float, ...] = PLAN.anchor_ratios
    channels: int = PLAN.channels
    map: str = PLAN.map
    crop: int = PLAN.crop
    recipe: LocalizationRecipe = LOCALIZER

    def __post_init__(self) -> None:
        """Check the plan, and the sides of the crops."""
        super().__post_init__()
        _ = self.plan
        least = self.recipe.sides[0]
        require(self.crop <= least, "sides", list(self.recipe.sides), f"from the crop ({self.crop}) up")

    @property
    def title(self) -> str:
        """How the default name of a run's folder begins: an R-CNN stage does not take that of its RPN."""
        return self.network if self.rpn is None else f"{self.network}-rcnn"

    @property
    def plan(self) -> LocalizerPlan:
        """The structure of the localizer: an `rcnn` where a run proposes its regions."""
        return LocalizerPlan.of({**vars(self), "stage": "rpn" if self.rpn is None else "rcnn"})
