"""The localization error: the share of pictures in which no guess has the right class and the right place."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from deepres.classification.accuracy import Scores
from deepres.data.boxes.index import BoxIndex

OVERLAP = 0.5  # IoU of a right box with an object, at least


def is_right(boxes: Tensor, truth: Tensor) -> Tensor:
    """Whether each of the boxes (k, 4) overlaps one of the objects `truth` (n, 4) by half, bool (k,)."""
    return (box_iou(boxes.float(), truth) >= OVERLAP).any(1)


def error_of(hits: Tensor | Sequence[bool]) -> Scores:
    """The error of pictures that are right or wrong, bool (N,), with `error()` and its `interval()`.

    Two such on the same pictures have a `difference`, whose interval draws pictures for both at once.
    """
    right = torch.as_tensor(hits, dtype=torch.bool)
    return Scores(torch.stack([right, ~right], 1).float(), torch.zeros(len(right), dtype=torch.int64))


def centre_box(index: BoxIndex) -> Tensor:
    """The box in the middle of a picture that has the mean width and height of the objects of `index`: float32 (4,).

    It is in units of the width and the height of a picture: what one knows without looking.
    """
    counts = index.ends.diff(prepend=index.ends.new_zeros(1))
    sizes = index.sizes.repeat_interleave(counts, 0).float()
    sides = ((index.objects.boxes[:, 2:] - index.objects.boxes[:, :2]) / sizes).mean(0)
    return torch.cat([0.5 - sides / 2, 0.5 + sides / 2])
