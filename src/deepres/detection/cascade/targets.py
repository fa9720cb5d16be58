"""What the regions of a cascade must learn: class and box, as those of a detector, and the mask of their object."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from deepres.detection.cascade.true_masks import TrueMasks
from deepres.detection.targets import Objects, Sample, sample_regions
from deepres.models.segmentation.cascade import Pass

LEFT_OUT = -100  # the label of a masked region that no loss counts, by PyTorch's convention
MASK_POSITIVE = 0.5  # overlap (IoU) of a mask with the true one from which on it has the class of the object
FINE = 4  # masks are compared at so many samples a side of a position


@dataclass(frozen=True, eq=False)
class RegionTargets:
    """What R sampled regions of one image must learn, of which the first p are positive.

    `sample` has their classes and boxes; `objects` (p,) are the places of the true objects of the positive ones, and
    `masks` bool (p, S, S) the true masks inside of these regions. Those that are not `known`, bool (p,), do not count.
    """

    sample: Sample
    objects: Tensor
    masks: Tensor
    known: Tensor


@dataclass(frozen=True)
class Binarising:
    """Positions a side of a mask, and the least value inside of the object."""

    size: int
    least: float


def sampled(
    regions: Tensor,
    objects: Objects,
    masks: TrueMasks,
    how: Binarising,
    count: int,
    positive_share: float,
    negatives_from: float,
) -> RegionTargets:
    """`count` of the regions (n, 4) of an image by chance, as a detector samples them: those of the first pass."""
    sample = sample_regions(regions, objects, count, positive_share, negatives_from)
    return _with_masks(regions, objects, masks, how, sample)


def of_all(regions: Tensor, objects: Objects, masks: TrueMasks, how: Binarising) -> RegionTargets:
    """All regions (n, 4) of an image but those in crowds, for the second pass: the first one has sampled already."""
    return _with_masks(regions, objects, masks, how, sample_regions(regions, objects, len(regions), 1.0, 0.0))


def _with_masks(regions: Tensor, objects: Objects, masks: TrueMasks, how: Binarising, sample: Sample) -> RegionTargets:
    own = regions[sample.places[: len(sample.deltas)]]
    nearest = box_iou(own, objects.boxes).max(1).indices if len(own) else sample.places[:0]
    known = masks.known.to(own.device)[nearest]
    return RegionTargets(sample, nearest, masks.cut(nearest, own, how.size) >= how.least, known)


@torch.no_grad()
def mask_labels(found: Pass, targets: Sequence[RegionTargets], masks: Sequence[TrueMasks], how: Binarising) -> Tensor:
    """The class that each masked region must get, int64 (R,), image by image.

    That is the class of its object if the region is positive and its predicted mask, binarised, overlaps the whole true
    mask by 0.5 (IoU) or more; else the background, 0 (MNC, Sec. 3.3). Where the mask of the object is not known, it is
    LEFT_OUT.
    """
    labels: list[Tensor] = []
    counts = [len(own) for own in found.regions]
    for regions, logits, own, true in zip(found.regions, found.masks.split(counts), targets, masks, strict=True):
        shared = _overlap(logits[: len(own.objects)], regions[: len(own.objects)], own.objects, true, how)
        kept = own.sample.labels.clone()
        kept[: len(shared)][shared < MASK_POSITIVE] = 0
        kept[: len(shared)][~own.known] = LEFT_OUT
        labels.append(kept)
    return torch.cat(labels)


def _overlap(logits: Tensor, regions: Tensor, objects: Tensor, true: TrueMasks, how: Binarising) -> Tensor:
    """The IoU (p,) of predicted masks, logits (p, S, S) of `regions`, and the whole true masks of `objects`."""
    if not len(objects):
        return logits.new_zeros(0)
    fine = FINE * how.size
    predicted = F.interpolate(logits.float().sigmoid()[:, None], (fine, fine), mode="bilinear", align_corners=False)
    inside = predicted[:, 0] >= how.least
    shared = (inside & (true.cut(objects, regions, fine) >= 0.5)).sum((1, 2))
    # From samples of the box to square pixels, in which the part of the object outside of the box counts, too.
    pixels = (regions[:, 2:] - regions[:, :2]).prod(1) / fine**2
    union = inside.sum((1, 2)) * pixels + true.areas.to(pixels)[objects] - shared * pixels
    return shared * pixels / union.clamp(min=torch.finfo(union.dtype).tiny)
