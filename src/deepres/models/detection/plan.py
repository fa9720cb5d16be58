"""What a detector is made of, beside its backbone, and how it is used: values that go with its weights."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from deepres.models.plan import Plan
from deepres.runtime.errors import InputError

Pooling = Literal["pool", "align"]
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


@dataclass(frozen=True, kw_only=True)
class DetectorPlan(Plan):
    """The structure of a detector, and the settings that its test has unless others are asked for.

    The defaults are those of Faster R-CNN as the paper uses it (Appendix A).
    """

    bounds: ClassVar = BOUNDS

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
        super().__post_init__()
        if self.pooling not in ("pool", "align"):
            raise InputError(f"pooling is {self.pooling!r}, but must be pool or align")


SCALES = (0.1, 0.1, 0.2, 0.2)  # the regression of regions is in these units (Fast R-CNN's code)
