"""The losses of a cascade: those of its RPN, and in each pass of masks, of two classes and of boxes (MNC, Sec. 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.detection.cascade.recipe import CascadeRecipe
from deepres.detection.cascade.targets import LEFT_OUT, Binarising, RegionTargets, mask_labels, of_all, sampled
from deepres.detection.cascade.true_masks import TrueMasks
from deepres.detection.loss import anchor_losses, region_losses
from deepres.detection.targets import Objects, sample_anchors
from deepres.models.detection.boxes import clip, decode
from deepres.models.detection.proposals import Selection, select_places
from deepres.models.segmentation.cascade import BOX_GRADIENT, CascadeOutputs, Pass
from deepres.models.segmentation.plan import CascadePlan
from deepres.models.segmentation.warping import limited

FIGURES = ("rpn_class_loss", "rpn_box_loss", "mask_loss", "class_loss", "mask_class_loss", "box_loss")
MASK_WEIGHT = 2.0  # of the loss of masks, in the authors' code
Size = tuple[int, int]  # height and width


def cascade_losses(
    net: nn.Module,
    plan: CascadePlan,
    images: Tensor,
    sizes: Sequence[Size],
    objects: Sequence[Objects],
    masks: Sequence[TrueMasks],
    recipe: CascadeRecipe,
) -> dict[str, Tensor]:
    """The losses of a training step by name (`FIGURES`), all of which are trained; those of regions over both passes.

    `net` is the cascade of this `plan`, as it is or wrapped for several ranks. `images` (N, C, H, W) are padded, and
    `sizes` are theirs without; `objects` and `masks` are what is in each. Regions of the first pass are sampled from
    the proposals of the same forward pass and the true boxes. The second pass has all of them, regressed, and the true
    boxes again. Gradients go through the boxes of both, limited, to what regressed them: the RPN, and the first pass.
    """
    regions = _Regions(plan, recipe, sizes, objects, masks)
    found: CascadeOutputs = net(images, sizes, regions.choose, regions.proceed)
    anchors = [
        sample_anchors(found.anchors, size, own, recipe.anchors) for size, own in zip(sizes, objects, strict=True)
    ]
    of_passes = [
        pass_losses(one, own, masks, regions.how) for one, own in zip(found.passes, regions.targets, strict=True)
    ]
    summed = [torch.stack(parts).sum() for parts in zip(*of_passes, strict=True)]
    return dict(zip(FIGURES, [*anchor_losses(found.objectness, found.anchor_deltas, anchors), *summed], strict=True))


def pass_losses(
    found: Pass, targets: Sequence[RegionTargets], masks: Sequence[TrueMasks], how: Binarising
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The losses of masks, of classes of boxes, of classes of masked regions, and of boxes, in one pass.

    That of masks is twice the mean cross-entropy over all positions of the positive regions' masks. Those of classes
    are means over the regions. That of boxes is the one of `detection.loss`.
    """
    # Masks of positive regions, which come first in each image.
    logits = found.masks.split([len(own) for own in found.regions])
    positive = torch.cat([part[: len(own.objects)][own.known] for part, own in zip(logits, targets, strict=True)])
    wanted = torch.cat([own.masks[own.known] for own in targets]).float()
    pixels = F.binary_cross_entropy_with_logits(positive.float(), wanted, reduction="sum") / max(1, wanted.numel())
    # Both classes, and boxes.
    classes, boxes = region_losses(found.found, [own.sample for own in targets])
    labels = mask_labels(found, targets, masks, how)
    counted = (labels != LEFT_OUT).sum().clamp(min=1)
    masked = F.cross_entropy(found.mask_logits.float(), labels, ignore_index=LEFT_OUT, reduction="sum") / counted
    return MASK_WEIGHT * pixels, classes, masked, boxes


@dataclass(frozen=True)
class _Regions:
    """The regions of a step, image by image, as a cascade asks for them; `targets` gets those of each pass."""

    plan: CascadePlan
    recipe: CascadeRecipe
    sizes: Sequence[Size]
    objects: Sequence[Objects]
    masks: Sequence[TrueMasks]
    targets: list[list[RegionTargets]] = field(default_factory=list[list[RegionTargets]])

    @property
    def how(self) -> Binarising:
        """The form of the masks."""
        return Binarising(self.plan.mask_size, self.plan.binarised)

    def choose(self, logits: Tensor, deltas: Tensor, anchors: Tensor) -> list[Tensor]:
        """The regions of the first pass: by chance among the proposals and the true boxes."""
        recipe = self.recipe
        how = Selection(recipe.candidates, recipe.proposals, smallest=self.plan.smallest)
        proposals: list[Tensor] = []
        for scores, moves, size in zip(logits.detach(), deltas, self.sizes, strict=True):
            _, _, places = select_places(scores, moves.detach(), anchors, size, how)
            # As they were selected, but with a gradient.
            proposals.append(clip(decode(limited(moves[places], BOX_GRADIENT), anchors[places]), size))
        share = (recipe.regions, recipe.positive_share, recipe.negatives_from)
        return self._taken(proposals, lambda boxes, own, true: sampled(boxes, own, true, self.how, *share))

    def proceed(self, regressed: list[Tensor]) -> list[Tensor]:
        """The regions of the second pass: all regressed boxes, and the true ones."""
        return self._taken(regressed, lambda boxes, own, true: of_all(boxes, own, true, self.how))

    def _taken(
        self, boxes: Sequence[Tensor], aim: Callable[[Tensor, Objects, TrueMasks], RegionTargets]
    ) -> list[Tensor]:
        """Those of the boxes (n, 4) and true boxes of each image that `aim` gives targets for."""
        every = [torch.cat([own, one.boxes]) for own, one in zip(boxes, self.objects, strict=True)]
        known = zip(every, self.objects, self.masks, strict=True)
        made = [aim(own.detach(), one, true) for own, one, true in known]
        self.targets.append(made)
        return [own[wanted.sample.places] for own, wanted in zip(every, made, strict=True)]
