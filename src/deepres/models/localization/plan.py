"""What a localizer is made of, beside its backbone: values that go with its weights."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from deepres.models.plan import Plan
from deepres.runtime.errors import InputError

Stage = Literal["rpn", "rcnn"]
BOUNDS: dict[str, tuple[float, float]] = {"channels": (1, 4_096), "crop": (32, 1_024)}


@dataclass(frozen=True, kw_only=True)
class LocalizerPlan(Plan):
    """The structure of a localizer (Appendix C). The paper gives no number of anchors and no size: these are ours.

    Raises `InputError` for a value that makes no sense.
    """

    bounds: ClassVar = BOUNDS

    stage: Stage = "rpn"  # `rpn`: boxes from anchors over a whole image; `rcnn`: a box from one warped region
    anchor_scales: tuple[float, ...] = (4.0, 8.0, 16.0)
    channels: int = 512  # of the 3x3 convolution before the layers of the classes
    map: str = ""  # of the backbone, which the anchors lie on; "": the last one (conv5_x)
    crop: int = 224  # pixels a side of the crops, and of the warped regions

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        if self.stage not in ("rpn", "rcnn"):
            raise InputError(f"stage is {self.stage!r}, but must be rpn or rcnn")
