"""The recipe of instance segmentation, that of Multi-task Network Cascades, and the configuration of a run."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from deepres.detection.recipe import DetectionConfig, DetectionRecipe
from deepres.models.segmentation.plan import BOUNDS, CascadePlan
from deepres.runtime.figures import SEGMENTATION
from deepres.training.recipe import Bounds, require

PLAN = CascadePlan()


@dataclass(frozen=True)
class CascadeRecipe(DetectionRecipe):
    """A recipe of joint training of all stages. The defaults are those of MNC on PASCAL VOC (Sec. 6)."""

    name: str = "mnc"
    iterations: int = 25_000
    batch_size: int = 8
    accumulate: int = 8
    milestones: tuple[int, ...] = (20_000,)
    regions: int = 64
    positive_share: float = 0.3

    def __post_init__(self) -> None:
        """Check the fields of this class, too."""
        super().__post_init__()
        require(self.part == "both", "part", self.part, "both: the stages of a cascade are trained together")


MNC = CascadeRecipe()
# Not in the paper: what `choose` finds for the data takes the place of sizes, rate and length.
AUTO = dataclasses.replace(MNC, name="auto")
FINETUNE = dataclasses.replace(MNC, name="finetune")
RECIPES = {recipe.name: recipe for recipe in (MNC, AUTO, FINETUNE)}


@dataclass(frozen=True)
class CascadeConfig(DetectionConfig):
    """All settings that a run of instance segmentation can be repeated from."""

    bounds: ClassVar[Bounds] = {**DetectionConfig.bounds, **BOUNDS}

    task: ClassVar[str] = SEGMENTATION
    stages: int = PLAN.stages
    warped: int = PLAN.warped
    mask_channels: int = PLAN.mask_channels
    mask_size: int = PLAN.mask_size
    binarised: float = PLAN.binarised
    voting: float = PLAN.voting
    recipe: CascadeRecipe = MNC

    @property
    def plan(self) -> CascadePlan:
        """The structure of the cascade, and how it is tested."""
        return CascadePlan.of(vars(self))
