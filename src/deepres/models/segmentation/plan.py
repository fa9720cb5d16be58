"""What a cascade is made of, beside its backbone, and how it is used: values that go with its weights."""

from dataclasses import dataclass
from typing import ClassVar

from deepres.models.detection.plan import DetectorPlan
from deepres.runtime.errors import InputError

BOUNDS: dict[str, tuple[float, float]] = {
    "mask_size": (2, 128),
    "mask_channels": (1, 4_096),
    "warped": (2, 128),
    "binarised": (0, 1),
    "voting": (0, 1),
}
STAGES = (3, 5)


@dataclass(frozen=True, kw_only=True)
class CascadePlan(DetectorPlan):
    """The structure of a cascade, and the settings of its test: those of its detector, and of its masks.

    The defaults are those of Multi-task Network Cascades (MNC, Sec. 3 to 6).
    """

    bounds: ClassVar = {**DetectorPlan.bounds, **BOUNDS}

    stages: int = 5  # 5: boxes are regressed and go through masks and classes again; 3: they do not
    warped: int = 28  # positions a side of a region as bilinear samples; the maxima of 2x2 of them are its features
    mask_channels: int = 256  # outputs of the layer between the features of a region and its mask
    mask_size: int = 21  # positions a side of a mask
    binarised: float = 0.4  # least value of a mask inside of the object
    voting: float = 0.5  # boxes whose masks vote on that of a detection overlap it (IoU) by this much or more

    def __post_init__(self) -> None:
        """Raise `InputError` for a value that makes no sense."""
        super().__post_init__()
        if self.stages not in STAGES:
            raise InputError(f"stages is {self.stages}, but must be 3 or 5")
        if self.warped % 2:
            raise InputError(f"warped is {self.warped}, but must be even: the maxima are of 2x2 positions")
        if self.pooling != "pool":
            raise InputError("the regions of a cascade are warped, not pooled; leave pooling out")
        if self.context:
            raise InputError("a cascade has no global context; leave context out")
