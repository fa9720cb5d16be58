"""Faster R-CNN on a network of the catalog (Appendix A)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from deepres.models.classifier import Classifier
from deepres.models.detection.anchors import anchors_over, base_anchors
from deepres.models.detection.boxes import clip, decode
from deepres.models.detection.detections import best
from deepres.models.detection.images import fitted, padded
from deepres.models.detection.outputs import Detections
from deepres.models.detection.plan import SCALES, DetectorPlan
from deepres.models.detection.proposals import TEST, ProposalNetwork, Selection, select
from deepres.models.detection.regions import RegionPooling
from deepres.models.network import Layer, Network
from deepres.models.plan import name_network
from deepres.models.registry import DETECTOR
from deepres.runtime.errors import InputError

MOST_ANCHORS = 2**22  # that are kept: 64 MiB
PROBE = (64, 512)  # height and width of the image that tells stride and channels
Size = tuple[int, int]  # height and width
# From logits (N, P), deltas (N, P, 4) and anchors (P, 4) to the regions (R, 4) of each image; None: no regions.
Choose = Callable[[Tensor, Tensor, Tensor], list[Tensor] | None]


class RegionOutputs(NamedTuple):
    """Logits (R, 1 + K), of which column 0 is the background's, and deltas (R, K, 4) in units of `plan.SCALES`."""

    logits: Tensor
    deltas: Tensor


class DetectorOutputs(NamedTuple):
    """What one forward pass gives for N images with P anchors and R_i regions each."""

    objectness: Tensor  # logits (N, P)
    anchor_deltas: Tensor  # (N, P, 4)
    anchors: Tensor  # (P, 4)
    regions: list[Tensor] | None  # (R_i, 4)
    found: RegionOutputs | None  # of all regions, image by image


class Detector(Network, pipeline_tag="object-detection"):
    """A backbone in two parts, the first over the whole image and the second for each region, and an RPN between them.

    `features` is the backbone without its last layer. Its maps up to `features.shared_map` (conv4_x) are computed once
    for an image; RPN and regions share them. Regions are pooled from there, and conv5_x and two sibling layers give
    scores and boxes of each (Appendix A).
    """

    def __init__(self, features: Network, plan: DetectorPlan, num_classes: int):
        super().__init__()
        if features.shared_map is None:
            raise InputError(f"{features.name} cannot be cut for regions; give a ResNet, a plain net, VGG or GoogLeNet")
        features.drop_classifier()
        self.features, self.plan, self.num_classes = features, plan, num_classes
        self.region_size = plan.region_size or features.region_size
        if features.region_fixed and self.region_size != features.region_size:
            raise InputError(
                f"{features.name} takes regions of {features.region_size} positions a side, not of {self.region_size}; "
                "leave region_size out"
            )
        # The stride of the shared map, and the channels of both parts.
        with torch.no_grad():
            features.eval()  # of one image, batch statistics would become running ones
            image = next(features.parameters()).new_zeros(1, features.header["in_channels"], *PROBE)
            shared = self.shared(image)
            region = shared.new_zeros(1, shared.shape[1], self.region_size, self.region_size)
            width = features.region_features(region).shape[1] * (2 if plan.context else 1)
            features.train()
        self.stride = PROBE[1] // shared.shape[-1]
        self.cut = RegionPooling(self.stride, self.region_size, plan.pooling)
        # The RPN, and the sibling layers with start values of Fast R-CNN.
        base = base_anchors(plan.anchor_scales, plan.anchor_ratios)
        self.rpn = ProposalNetwork(shared.shape[1], plan.rpn_channels, len(base))
        self.score, self.box = Classifier(width, 1 + num_classes), Classifier(width, 4 * num_classes)
        for layer, std in ((self.score, 0.01), (self.box, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self._anchors: dict[tuple[Size, torch.device], Tensor] = {}

    def forward(self, x: Tensor, sizes: Sequence[Size] | None = None, choose: Choose | None = None) -> DetectorOutputs:
        """Images (N, C, H, W), less the mean, to objectness, regions, scores and boxes.

        `sizes` are the (height, width) of the images without their padding. `choose` gives the regions that are scored;
        without it they are the proposals of a test.
        """
        sizes = sizes or [(x.shape[2], x.shape[3])] * len(x)
        shared = self.shared(x)
        found = self.anchored(shared)
        regions = self.proposals(*found, sizes, self.selection) if choose is None else choose(*found)
        return DetectorOutputs(
            *found, regions, None if regions is None else self.region_outputs(shared, regions, sizes)
        )

    @property
    def selection(self) -> Selection:
        """How proposals are selected in a test."""
        return replace(TEST, after=self.plan.proposals, smallest=self.plan.smallest)

    def shared(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to the map that RPN and regions share."""
        return self.features.feature_map(self.features.large_enough(x), until=self.features.shared_map)

    def anchored(self, shared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The shared map to logits (N, P) and deltas (N, P, 4) of its P anchors, and the anchors (P, 4)."""
        logits, deltas = self.rpn(shared)
        return logits, deltas, self.anchors((shared.shape[2], shared.shape[3]), shared.device)

    def anchors(self, size: Size, device: torch.device) -> Tensor:
        """The anchors of a map of `size`, made once for each size."""
        if (size, device) not in self._anchors:
            if sum(map(len, self._anchors.values())) > MOST_ANCHORS:
                self._anchors.clear()
            base = base_anchors(self.plan.anchor_scales, self.plan.anchor_ratios).to(device)
            self._anchors[size, device] = anchors_over(size, base, self.stride)
        return self._anchors[size, device]

    def proposals(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, sizes: Sequence[Size], how: Selection
    ) -> list[Tensor]:
        """The proposals (k, 4) of each image, by falling objectness."""
        return [
            select(own, moves, anchors, size, how)[0] for own, moves, size in zip(logits, deltas, sizes, strict=True)
        ]

    def region_outputs(self, shared: Tensor, regions: Sequence[Tensor], sizes: Sequence[Size]) -> RegionOutputs:
        """Scores and boxes of the regions (R_i, 4) of each image, from the shared map (N, C, h, w)."""
        return self.siblings(self.features_of(shared, regions, sizes))

    def features_of(self, shared: Tensor, regions: Sequence[Tensor], sizes: Sequence[Size]) -> Tensor:
        """What the sibling layers take, (R, D), for the regions (R_i, 4) of each image; arguments as above."""
        if not self.plan.context:
            return self._region_features(shared, regions)
        # The whole image is one more region, whose features stand beside those of every other one (Appendix B). It goes
        # through the layers with them: batch statistics, where BN is trained, are those of both.
        whole = [shared.new_tensor([[0, 0, width, height]], dtype=torch.float32) for height, width in sizes]
        every = [torch.cat(pair) for pair in zip(regions, whole, strict=True)]
        features = self._region_features(shared, every).split([len(own) for own in every])
        return torch.cat([torch.cat([own[:-1], own[-1:].expand(len(own) - 1, -1)], 1) for own in features])

    def siblings(self, features: Tensor) -> RegionOutputs:
        """The features of R regions, (R, D), to their scores and boxes."""
        return RegionOutputs(self.score(features), self.box(features).view(-1, self.num_classes, 4))

    def _region_features(self, shared: Tensor, regions: Sequence[Tensor]) -> Tensor:
        cut = self.cut(shared, regions)
        return self.features.region_features(cut)

    def scored(self, shared: Tensor, regions: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Probabilities (R, 1 + K) and boxes (R, K, 4) of the regions of each image, in its pixels and inside of it."""
        logits, deltas = self.region_outputs(shared, regions, sizes)
        counts = [len(own) for own in regions]
        found = zip(logits.float().softmax(1).split(counts), deltas.split(counts), regions, sizes, strict=True)
        return [(scores, located(own, boxes, size)) for scores, own, boxes, size in found]

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """The detections in images uint8 (C, H, W), in their pixels, by the settings of `plan`.

        `detection.tester` has box refinement, several scales and ensembles. Raises `InputError` for a network in
        training mode or without a mean, and for images of another kind or that are too small.
        """
        if self.training:
            raise InputError(f"{self.name} is in training mode, in which BN differs; call eval() first")
        if self.mean is None:
            raise InputError(f"{self.name} has no mean, which images lack; set `mean` to that of the training images")
        channels = self.header["in_channels"]
        for image in cast("Sequence[object]", images):
            given = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            if (
                not isinstance(image, Tensor)
                or image.dtype != torch.uint8
                or image.dim() != 3
                or len(image) != channels
                or not image.numel()
            ):
                raise InputError(
                    f"{self.name} detects in a list of images uint8 ({channels}, height, width), not {given}; "
                    "give such, as torchvision.io.decode_image makes them"
                )
        mean = self.mean.to(next(self.parameters()).device)
        seen = (fitted(image.to(mean.device), self.plan.side, self.plan.longest) for image in images)
        return [self.detect_fitted(own, one.shape[1:], mean) for own, one in zip(seen, images, strict=True)]

    @torch.no_grad()
    def detect_fitted(self, seen: Tensor, size: Sequence[int], mean: Tensor) -> Detections:
        """The detections in one image, in pixels of its own `size` (height, width).

        `seen` uint8 (C, h, w) is the image as the network sees it, on its device, and `mean` (C, 1, 1) is subtracted.
        """
        small = (seen.shape[1], seen.shape[2])
        shared = self.shared(padded([seen], mean))
        regions = self.proposals(*self.anchored(shared), [small], self.selection)
        scores, boxes = self.scored(shared, regions, [small])[0]
        scale = boxes.new_tensor([size[1] / small[1], size[0] / small[0]]).repeat(2)
        boxes = clip(boxes * scale, (size[0], size[1]))  # the product may be rounded to beyond the border
        return best(scores, boxes, self.plan.threshold, self.plan.nms, self.plan.most)

    def backbone(self) -> Mapping[str, Sequence[Layer]]:
        """The stages of the backbone."""
        return self.features.backbone()

    def parts(self) -> tuple[list[str], list[str]]:
        """The stages with parameters that RPN and regions share, and those of the regions alone."""
        names = [name for name, stage in self.stages().items() if any(True for _ in stage.parameters())]
        last = names.index(str(self.features.shared_map)) + 1
        return names[:last], [name for name in names[last:] if name != "rpn"]

    def stages(self) -> Mapping[str, nn.Module]:
        """The stages of the backbone, then `rpn`, `score` and `box`."""
        own = {name: child for name, child in self.named_children() if name not in ("features", "cut")}
        return {**self.features.stages(), **own}


def located(deltas: Tensor, regions: Tensor, size: Size) -> Tensor:
    """The boxes (R, K, 4), inside of an image of `size`, that `deltas` (R, K, 4) of `RegionOutputs` make of regions."""
    return clip(decode(deltas.float() * deltas.new_tensor(SCALES, dtype=torch.float32), regions), size)


def detector(features: Network, plan: DetectorPlan, num_classes: int) -> Detector:
    """A detector on the network `features`, which loses its last layer and is a part of it from now on.

    Name and header tell backbone and plan, so that `catalog.build` makes it again.
    """
    made = Detector(features, plan, num_classes)
    name_network(made, DETECTOR, features, plan, num_classes, "detector")
    made.mean = None if features.mean is None else features.mean.mean((1, 2), keepdim=True)
    return made
