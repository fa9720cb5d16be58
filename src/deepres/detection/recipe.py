"""The recipe of detection, Faster R-CNN's as the paper uses it (Appendix A), and the configuration of a run."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from deepres.models.detection.plan import BOUNDS, DetectorPlan, Pooling
from deepres.runtime.figures import DETECTION, REPORTED, Reported, row_of
from deepres.training.config import Config
from deepres.training.recipe import LONG, Bounds, Recipe, require

PART = Literal["both", "rpn", "regions"]
PLAN = DetectorPlan()


@dataclass(frozen=True)
class DetectionRecipe(Recipe):
    """A recipe with the sizes and samples of Faster R-CNN. The defaults are those of its joint training on PASCAL VOC.

    Joint ("end to end") training is py-faster-rcnn's; the paper's text describes four steps, see `alternating`.
    """

    bounds: ClassVar[Bounds] = {
        **Recipe.bounds,
        "sides": BOUNDS["side"],
        **dict.fromkeys(("anchors", "regions", "proposals", "candidates"), (1, 100_000)),
        **dict.fromkeys(("positive_share", "negatives_from", "colour"), (0.0, 1.0)),
    }

    name: str = "faster-rcnn"
    iterations: int = 70_000
    batch_size: int = 2
    accumulate: int = 2
    lr: float = 0.001
    milestones: tuple[int, ...] = (50_000,)
    weight_decay: float = 5e-4
    evaluate_every: int = 5_000
    sides: tuple[int, ...] = ()  # shorter sides in pixels, one of which is drawn for an image; none: that of the test
    flip: bool = True  # mirror an image at random
    colour: float = 0.0  # share of images whose brightness, contrast, saturation and hue are changed
    part: PART = "both"  # which losses are trained: those of the RPN, of the regions, or of both
    anchors: int = 256  # of an image, for the losses of the RPN; up to half of them positive
    candidates: int = 12_000  # best anchors before non-maximum suppression
    proposals: int = 2_000  # of an image, after it
    regions: int = 128  # of an image, for the losses of the regions
    positive_share: float = 0.25  # of the regions, at most
    negatives_from: float = 0.0  # a negative region overlaps a box by at least this much, and by less than 0.5

    def __post_init__(self) -> None:
        """Check the fields of this class, too."""
        super().__post_init__()
        require(self.negatives_from < 0.5, "negatives_from", self.negatives_from, "below 0.5")
        require(self.warmup != "error", "warmup", self.warmup, "none or linear: a detector has no training error")


FASTER_RCNN = DetectionRecipe()
# Not in the paper: what `choose` finds for the data takes the place of sizes, rate and length.
AUTO = dataclasses.replace(FASTER_RCNN, name="auto")
FINETUNE = dataclasses.replace(FASTER_RCNN, name="finetune")
RECIPES = {recipe.name: recipe for recipe in (FASTER_RCNN, AUTO, FINETUNE)}
CHOSEN = (None, AUTO.name, FINETUNE.name)  # recipes, or none, for which `choose` is asked


@dataclass(frozen=True)
class DetectionConfig(Config):
    """All settings that a run of detection can be repeated from."""

    bounds: ClassVar[Bounds] = {
        **Config.bounds,
        **BOUNDS,
        "test_images": (0, LONG),
    }

    task: ClassVar[str] = DETECTION
    compile: str = "off"  # images differ in size, and PyTorch compiles for each
    freeze: tuple[str, ...] | None = ("bn",)  # stages that stay fixed; `bn`: all BN (Appendix A)
    train_set: str | None = None  # names of the image sets that are trained on; None: by the layout of the data
    test_set: str | None = None
    rpn: str | None = None  # a run whose RPN proposes the regions that are trained on; None: the network's own
    keep_difficult: bool = False  # train on objects that PASCAL VOC marks as difficult, too
    test_images: int = 0  # test images for the curve, spread over the test set; 0: all; the last test always takes all
    anchor_scales: tuple[float, ...] = PLAN.anchor_scales
    anchor_ratios: tuple[float, ...] = PLAN.anchor_ratios
    rpn_channels: int = PLAN.rpn_channels
    pooling: Pooling = PLAN.pooling
    region_size: int = PLAN.region_size
    context: bool = PLAN.context
    side: int = PLAN.side
    longest: int = PLAN.longest
    proposals: int = PLAN.proposals
    smallest: float = PLAN.smallest
    threshold: float = PLAN.threshold
    nms: float = PLAN.nms
    most: int = PLAN.most
    recipe: DetectionRecipe = FASTER_RCNN

    def __post_init__(self) -> None:
        """Check the plan of the detector, too."""
        super().__post_init__()
        _ = self.plan

    @property
    def reported(self) -> Reported:
        """The figures that a run records; those of an RPN alone are of its proposals."""
        return REPORTED[row_of(self.task, self.recipe.part)]

    @property
    def plan(self) -> DetectorPlan:
        """The structure of the detector, and how it is tested."""
        return DetectorPlan.of(vars(self))
