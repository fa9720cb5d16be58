"""The four losses of Faster R-CNN: objectness and boxes of anchors, classes and boxes of regions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.detection.targets import Sample
from deepres.models.detection.detector import RegionOutputs
from deepres.models.detection.plan import SCALES

ANCHOR_BETA, REGION_BETA = 1 / 9, 1.0  # where smooth L1 becomes straight: sigma 3 and 1 in the authors' code
FIGURES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")


def anchor_losses(logits: Tensor, deltas: Tensor, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """The losses of the RPN over the sampled anchors of N images, from its `logits` (N, P) and `deltas` (N, P, 4).

    The first is the mean cross-entropy of object or not; the second the smooth L1 loss of the positive anchors, divided
    by the number of all sampled ones.
    """
    count = max(1, sum(len(sample.places) for sample in samples))
    pairs = list(zip(logits, samples, strict=True))
    chosen = torch.cat([own[sample.places] for own, sample in pairs])
    labels = torch.cat([sample.labels for sample in samples]).to(chosen.dtype)
    classes = F.binary_cross_entropy_with_logits(chosen, labels, reduction="sum") / count
    found = torch.cat([own[sample.places[: len(sample.deltas)]] for own, sample in zip(deltas, samples, strict=True)])
    wanted = torch.cat([sample.deltas for sample in samples])
    return classes, F.smooth_l1_loss(found, wanted, beta=ANCHOR_BETA, reduction="sum") / count


def region_losses(found: RegionOutputs, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """The losses of the sampled regions, which `found` are the outputs of, image by image in the samples' order.

    The first is the mean cross-entropy of the classes; the second the smooth L1 loss of the boxes that belong to the
    class of each positive region, in units of `SCALES`, divided by the number of all regions (Fast R-CNN Eq. 1).
    """
    labels = torch.cat([sample.labels for sample in samples])
    count = max(1, len(labels))
    classes = F.cross_entropy(found.logits.float(), labels, reduction="sum") / count
    # The places of the positive regions: each image's come first.
    positive = labels.nonzero().flatten()
    own = found.deltas[positive, labels[positive] - 1].float()
    wanted = torch.cat([sample.deltas for sample in samples])
    wanted = wanted / wanted.new_tensor(SCALES)
    return classes, F.smooth_l1_loss(own, wanted, beta=REGION_BETA, reduction="sum") / count
