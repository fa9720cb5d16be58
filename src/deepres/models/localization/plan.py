"""What a localizer is made of, beside its backbone: values that go with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from deepres.models.detection.plan import MOST_ANCHORS
from deepres.runtime.errors import InputError, few

Stage = Literal["rpn", "rcnn"]
LISTS = ("anchor_scales", "anchor_ratios")
BOUNDS: dict[str, tuple[float, float]] = {"channels": (1, 4_096), "crop": (32, 1_024)}


@dataclass(frozen=True)
class LocalizerPlan:
    """The structure of a localizer (Appendix C). The paper gives no number of anchors and no size: these are ours.

    Raises `InputError` for a value that makes no sense.
    """

    stage: Stage = "rpn"  # `rpn`: boxes from anchors over a whole image; `rcnn`: a box from one warped region
    anchor_scales: tuple[float, ...] = (4.0, 8.0, 16.0)  # sides of the square anchors are 16 times as long, in pixels
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height by width
    channels: int = 512  # of the 3x3 convolution before the layers of the classes
    map: str = ""  # of the backbone, which the anchors lie on; "": the last one (conv5_x)
    crop: int = 224  # pixels a side of the crops, and of the warped regions

    def __post_init__(self) -> None:
        """Check every field."""
        for name in LISTS:
            value = getattr(self, name)
            if not value or len(value) > MOST_ANCHORS or not all(0.01 <= part <= 100 for part in value):
                shown = few(map(str, value)) or "empty"
                raise InputError(f"{name} is {shown}, but must be 1 to {MOST_ANCHORS} numbers from 0.01 to 100")
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}, but must be from {least:,} to {most:,}")
        if self.stage not in ("rpn", "rcnn"):
            raise InputError(f"stage is {self.stage!r}, but must be rpn or rcnn")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The plan of these fields; lists become tuples, fields of other names are left out."""
        own: dict[str, Any] = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        own |= {name: tuple(own[name]) for name in LISTS if name in own}
        return cls(**own)
