"""What a detector finds in one picture."""

from dataclasses import dataclass

from torch import Tensor

from deepres.runtime.masks import Masks


@dataclass(frozen=True, eq=False)
class Detections:
    """The k detections of one picture, by falling score.

    `boxes` float32 (k, 4) are (left, top, right, bottom) in pixels of the picture, in continuous coordinates: pixel i
    reaches from i to i + 1. `scores` float32 (k,) are from 0 to 1. `labels` int64 (k,) are places among the classes.
    `masks` are those of the detections, in the same pixels; None from a detector of boxes alone.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Detections":
        """The first `count`, which are the surest."""
        masks = None if self.masks is None else self.masks[:count]
        return Detections(self.boxes[:count], self.scores[:count], self.labels[:count], masks)
