"""Multi-task Network Cascades (Dai, He and Sun 2015): boxes, then a mask of each box, then a class of each mask."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.models.classifier import Classifier
from deepres.models.detection.boxes import clip
from deepres.models.detection.detections import candidates, suppressed
from deepres.models.detection.detector import Choose, Detector, RegionOutputs, Size, located
from deepres.models.detection.images import padded
from deepres.models.detection.outputs import Detections
from deepres.models.detection.plan import DetectorPlan
from deepres.models.network import Network
from deepres.models.plan import name_network
from deepres.models.registry import CASCADE
from deepres.models.segmentation.plan import CascadePlan
from deepres.models.segmentation.voting import Voters, voted
from deepres.models.segmentation.warping import RegionWarping, limited
from deepres.runtime.errors import InputError

BOX_GRADIENT = 1 / 512  # of regression, along the way through the box of a later stage: that of the authors' code
# From the regressed boxes (R_i, 4) of each image to the regions (Q_i, 4) of the second pass.
Proceed = Callable[[list[Tensor]], list[Tensor]]


class Pass(NamedTuple):
    """What stages 2 and 3 give for R regions, image by image."""

    regions: list[Tensor]  # (R_i, 4)
    masks: Tensor  # logits (R, S, S), each of its box
    mask_logits: Tensor  # (R, 1 + K): the class of the masked region
    found: RegionOutputs  # the class of the box, and its regression


class CascadeOutputs(NamedTuple):
    """What one forward pass gives for N images with P anchors."""

    objectness: Tensor  # logits (N, P)
    anchor_deltas: Tensor  # (N, P, 4)
    anchors: Tensor  # (P, 4)
    passes: list[Pass]  # of stages 2 and 3, and of 4 and 5


class Cascade(Detector, pipeline_tag="image-segmentation"):
    """A detector whose regions get a mask each, with which they are classified (MNC, Sec. 3 to 5).

    Stage 1 is the RPN. Stage 2 warps each region and gives its mask, whatever its class. Stage 3 has two paths of the
    layers that a detector has for regions (conv5_x, or fc6 and fc7), each with weights of its own: one takes the
    region, the other (`masked`) the region multiplied by its mask. Of the features of both, three sibling layers give
    the class of the box, its regression, and the class of the masked region. Stages 4 and 5 are 2 and 3 again, with the
    same weights, on the regressed boxes.
    """

    plan: CascadePlan

    def __init__(self, features: Network, plan: CascadePlan, num_classes: int):
        super().__init__(features, plan, num_classes)
        if self.region_size > plan.warped // 2:
            raise InputError(
                f"{features.name} takes regions of {self.region_size} positions a side, of which warping to "
                f"{plan.warped} leaves {plan.warped // 2}; give warped={2 * self.region_size} or more"
            )
        self.cut = RegionWarping(self.stride, plan.warped)
        self.mask = MaskLayers(self.rpn.conv.in_channels, plan)
        self.masked = region_layers(features)
        # The sibling layers take the features of both paths.
        width = 2 * self.score.in_features
        self.score, self.mask_score = Classifier(width, 1 + num_classes), Classifier(width, 1 + num_classes)
        self.box = Classifier(width, 4 * num_classes)
        for layer, std in ((self.score, 0.01), (self.mask_score, 0.01), (self.box, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Tensor,
        sizes: Sequence[Size] | None = None,
        choose: Choose | None = None,
        proceed: Proceed | None = None,
    ) -> CascadeOutputs:
        """Images (N, C, H, W), less the mean, to anchors and one pass, or two in a cascade of five stages.

        `sizes` are the (height, width) of the images without their padding. `choose` gives the regions of the first
        pass; without it they are the proposals of a test. `proceed` makes those of the second pass of the regressed
        boxes; without it they are these boxes. Regions may have gradients.
        """
        sizes = sizes or [(x.shape[2], x.shape[3])] * len(x)
        shared = self.shared(x)
        found = self.anchored(shared)
        regions = self.proposals(*found, sizes, self.selection) if choose is None else choose(*found)
        return CascadeOutputs(*found, [] if regions is None else self.passes(shared, regions, sizes, proceed))

    def passes(
        self, shared: Tensor, regions: list[Tensor], sizes: Sequence[Size], proceed: Proceed | None = None
    ) -> list[Pass]:
        """One pass or two, by the plan, that begin with the regions (R_i, 4) of each image; arguments as above."""
        made = [self.one_pass(shared, regions)]
        if self.plan.stages == 5:
            boxes = regressed(made[0], sizes)
            made.append(self.one_pass(shared, boxes if proceed is None else proceed(boxes)))
        return made

    def one_pass(self, shared: Tensor, regions: list[Tensor]) -> Pass:
        """Masks, classes and regression of the regions (R_i, 4) of each image, from the shared map (N, C, h, w)."""
        cut = self.cut(shared, regions)
        masks = self.mask(cut)
        features = self.joined(cut, masks)
        return Pass(regions, masks, self.mask_score(features), self.siblings(features))

    def _region_features(self, shared: Tensor, regions: Sequence[Tensor]) -> Tensor:
        """What the sibling layers take, (R, 2 D): so a cascade is tested as a detector, too."""
        cut = self.cut(shared, regions)
        return self.joined(cut, self.mask(cut))

    def joined(self, cut: Tensor, masks: Tensor) -> Tensor:
        """The features (R, 2 D) of regions and of masked regions."""
        weights = F.interpolate(masks.sigmoid()[:, None], cut.shape[2:], mode="bilinear", align_corners=False)
        # Layers for 7x7 positions (VGG) get the maxima of 2x2, those for 14x14 (ResNets) the regions as they are.
        bins, rest = divmod(cut.shape[2], self.region_size)
        both = [
            F.adaptive_max_pool2d(own, self.region_size) if rest else F.max_pool2d(own, bins)
            for own in (cut * weights, cut)
        ]
        return torch.cat([self.masked.region_features(both[0]), self.features.region_features(both[1])], 1)

    @torch.no_grad()
    def detect_fitted(
        self, seen: Tensor, size: Sequence[int], mean: Tensor, plan: DetectorPlan | None = None
    ) -> Detections:
        """The detections with masks in one image, in pixels of its own `size` (height, width); as of a detector.

        The numbers of proposals and detections, threshold and suppression are those of `plan` where it is given.
        """
        found, voters = self.elected(seen, size, mean, plan)
        return voted(found, *voters, self.plan.voting, self.plan.binarised, (size[0], size[1]))

    @torch.no_grad()
    def elected(
        self, seen: Tensor, size: Sequence[int], mean: Tensor, plan: DetectorPlan | None = None
    ) -> tuple[Detections, Voters]:
        """The detections without their masks, and the candidates that vote on these; arguments as above.

        The regions of both passes are candidates, with the scores of their masks (MNC, Sec. 6): suppression within
        each class, and the best.
        """
        small, own = (seen.shape[1], seen.shape[2]), (size[0], size[1])
        shared = self.shared(padded([seen], mean))
        plan = plan or self.plan
        how = replace(self.selection, after=plan.proposals)
        passes = self.passes(shared, self.proposals(*self.anchored(shared), [small], how), [small])
        # All candidates, on the processor: many small steps follow.
        scale = mean.new_tensor([own[1] / small[1], own[0] / small[0]]).repeat(2)
        voters = Voters(
            clip(torch.cat([one.regions[0] for one in passes]) * scale, own).cpu(),
            torch.cat([one.mask_logits for one in passes]).float().softmax(1).cpu(),
            torch.cat([one.masks for one in passes]).float().sigmoid().cpu(),
        )
        every = candidates(voters.probabilities, voters.boxes[:, None].expand(-1, self.num_classes, -1), plan.threshold)
        return suppressed(*every, plan.nms, plan.most), voters


class MaskLayers(nn.Module):
    """Two fully connected layers: the features of a region to the logits of its mask (MNC, Sec. 3.2)."""

    def __init__(self, in_channels: int, plan: CascadePlan):
        super().__init__()
        self.size = plan.mask_size
        self.fc = nn.Linear(in_channels * (plan.warped // 2) ** 2, plan.mask_channels)
        self.logits = Classifier(plan.mask_channels, plan.mask_size**2)
        for layer in (self.fc, self.logits):
            nn.init.normal_(layer.weight, std=0.001)
            nn.init.zeros_(layer.bias)

    def forward(self, cut: Tensor) -> Tensor:
        """Regions (R, C, s, s) to logits (R, S, S)."""
        return self.logits(F.relu(self.fc(cut.flatten(1)))).unflatten(1, (self.size, self.size))


def region_layers(features: Network) -> Network:
    """A copy of the layers of `features` behind its shared map; the layers before it are none."""
    copy = deepcopy(features)
    # The stages up to the shared map; layers without weights, which may be there to tell stages apart, stay.
    stages = copy.stages()
    shared = list(stages)[: list(stages).index(str(copy.shared_map)) + 1]
    gone = {layer for name in shared for layer in stages[name].modules() if _has_weights(layer)}
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if child in gone:
                setattr(parent, name, nn.Identity())
    return copy


def _has_weights(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())


def regressed(one: Pass, sizes: Sequence[Size]) -> list[Tensor]:
    """The regressed box (R_i, 4) of each region, inside of its image: that of the likeliest class of its mask.

    Gradients go through the box to its region and, limited, to its regression (MNC, Sec. 5). A box that is no number,
    of a network that has diverged, is an empty one.
    """
    labels = one.mask_logits.detach()[:, 1:].argmax(1)
    deltas = limited(one.found.deltas[torch.arange(len(labels), device=labels.device), labels], BOX_GRADIENT)
    parts = deltas.split([len(own) for own in one.regions])
    return [
        located(own[:, None], regions, size)[:, 0].nan_to_num()
        for own, regions, size in zip(parts, one.regions, sizes, strict=True)
    ]


def cascade(features: Network, plan: CascadePlan, num_classes: int) -> Cascade:
    """A cascade on the network `features`, which loses its last layer and is a part of it from now on.

    Name and header tell backbone and plan, so that `catalog.build` makes it again.
    """
    made = Cascade(features, plan, num_classes)
    name_network(made, CASCADE, features, plan, num_classes, "detector")
    made.mean = None if features.mean is None else features.mean.mean((1, 2), keepdim=True)
    return made
