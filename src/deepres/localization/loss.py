"""The losses of a localizer: the logistic units and the boxes of the drawn anchors, for the class of each image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.localization.targets import Drawn
from deepres.models.detection.boxes import encode
from deepres.models.detection.plan import SCALES
from deepres.models.localization.localizer import LocalizerOutputs
from deepres.models.localization.plan import Stage

FIGURES: tuple[str, ...] = ("class_loss", "box_loss")
BETAS: dict[Stage, float] = {"rpn": 1 / 9, "rcnn": 1.0}  # where smooth L1 becomes straight, as in Faster R-CNN


def units_of(stage: Stage) -> tuple[float, ...]:
    """The units of the regressed deltas: those of Fast R-CNN for regions, 1 for anchors."""
    return SCALES if stage == "rcnn" else (1.0, 1.0, 1.0, 1.0)


def losses(found: LocalizerOutputs, drawn: Drawn, boxes: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """The two losses of N images; `found` are the outputs for the one class of each, and `boxes` (N, M, 4) its objects.

    The first is the mean binary cross-entropy of the drawn anchors. The second is the smooth L1 loss of the positive
    ones, divided by the number of all drawn ones. Units of other classes are not trained by an image (our reading).
    """
    logits, deltas = found.logits[:, 0], found.deltas[:, 0]
    chosen = drawn.positive | drawn.negative
    count = chosen.sum().clamp(min=1)
    each = F.binary_cross_entropy_with_logits(logits, drawn.positive.to(logits.dtype), reduction="none")
    classes = torch.where(chosen, each, 0).sum() / count
    # The boxes of the positive anchors.
    images, places = drawn.positive.nonzero().unbind(1)
    wanted = encode(boxes[images, drawn.nearest[images, places]], found.anchors[places])
    wanted = wanted / wanted.new_tensor(units_of(stage))
    return classes, F.smooth_l1_loss(deltas[images, places], wanted, beta=BETAS[stage], reduction="sum") / count
