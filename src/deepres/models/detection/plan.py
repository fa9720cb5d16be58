"""What a detector is made of, beside its backbone, and how it is used: values that go with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from deepres.runtime.errors import InputError, few

Pooling = Literal["pool", "align"]
LISTS = {"anchor_scales", "anchor_ratios"}
MOST_ANCHORS = 16  # scales, or ratios
BOUNDS: dict[str, tuple[float, float]] = {
    "rpn_channels": (1, 4_096),
    "region_size": (0, 64),
    "side": (32, 4_096),  # a picture takes gigabytes there
    "longest": (32, 8_192),
    "proposals": (1, 100_000),
    "smallest": (0, 8_192),
    "threshold": (0, 1),
    "nms": (0, 1),
    "most": (1, 100_000),
}


@dataclass(frozen=True)
class DetectorPlan:
    """The structure of a detector, and the settings that its test has unless others are asked for.

    The defaults are those of Faster R-CNN as the paper uses it (Appendix A).
    """

    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)  # sides of the square anchors are 16 times as long, in pixels
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height by width
    rpn_channels: int = 512
    pooling: Pooling = "pool"  # of regions: `pool`, the maximum of rounded bins, or `align`, bilinear samples
    region_size: int = 0  # positions a side of a pooled region; 0: by the backbone, 14 for ResNets and 7 for VGG
    context: bool = False  # the features of the whole image stand beside those of each region (Appendix B)
    side: int = 600  # pixels of an image's shorter side
    longest: int = 1000  # pixels of an image's longer side at most; it wins over `side`
    proposals: int = 300  # of an image, in the test
    smallest: float = 16.0  # pixels of a proposal's shorter side at least, in the image as the network sees it
    threshold: float = 0.05  # least score of a detection
    nms: float = 0.3  # detections of one class overlap less
    most: int = 100  # detections of an image

    def __post_init__(self) -> None:
        """Raise `InputError` for a value that makes no sense."""
        for name in sorted(LISTS):
            value = getattr(self, name)
            if not value or len(value) > MOST_ANCHORS or not all(0.01 <= part <= 100 for part in value):
                shown = few(map(str, value)) or "empty"
                raise InputError(f"{name} is {shown}, but must be 1 to {MOST_ANCHORS} numbers from 0.01 to 100")
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}, but must be from {least} to {most:,}")
        if self.pooling not in ("pool", "align"):
            raise InputError(f"pooling is {self.pooling!r}, but must be pool or align")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The plan of these fields; lists become tuples, fields of other names are left out."""
        own: dict[str, Any] = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in LISTS & own.keys():
            own[name] = tuple(own[name])
        return cls(**own)


SCALES = (0.1, 0.1, 0.2, 0.2)  # the regression of regions is in these units (Fast R-CNN's code)
