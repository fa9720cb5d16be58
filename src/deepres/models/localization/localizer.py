"""Localizers: the box of an object whose class is given, by layers for each class (Appendix C)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.models.detection.anchors import BASE, anchors_over, base_anchors
from deepres.models.localization.plan import LocalizerPlan
from deepres.models.network import Layer, Network
from deepres.models.plan import name_network
from deepres.models.registry import LOCALIZER
from deepres.runtime.errors import InputError

BOX = 4


class LocalizerOutputs(NamedTuple):
    """What one forward pass gives for N images, the k classes that are asked of each, and P anchors."""

    logits: Tensor  # (N, k, P), of independent logistic units
    deltas: Tensor  # (N, k, P, 4)
    anchors: Tensor  # (P, 4), in pixels of the image


class PerClass(nn.Conv2d):
    """A 1x1 convolution with `outputs` channels for each class, computed for the classes that are asked for alone.

    Channel c * outputs + i is output i of class c. So no map of 1000 x 4 x anchors channels is ever formed.
    """

    def __init__(self, in_channels: int, num_classes: int, outputs: int, std: float):
        super().__init__(in_channels, num_classes * outputs, 1)
        self.num_classes, self.outputs = num_classes, outputs
        nn.init.normal_(self.weight, std=std)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor, classes: Tensor | None = None) -> Tensor:
        """A map (N, C, h, w) and the `classes` of each image, int64 (N, k), to (N, k, outputs, h, w).

        Without `classes` it is the whole convolution, all classes of each image.
        """
        if classes is None:
            return super().forward(input).unflatten(1, (self.num_classes, self.outputs))
        assert self.bias is not None
        kernels = self.weight.view(self.num_classes, self.outputs, -1)[classes].flatten(1, 2)  # (N, k * outputs, C)
        biases = self.bias.view(self.num_classes, self.outputs)[classes].flatten(1, 2)
        values = torch.baddbmm(biases[:, :, None], kernels, input.flatten(2).to(kernels.dtype))
        return values.unflatten(1, (classes.shape[1], self.outputs)).unflatten(-1, input.shape[2:])

    def take_classes(self, places: Sequence[int]) -> None:
        """Keep, in place, the channels of the classes at these places alone, in this order."""
        rows = torch.as_tensor(places, device=self.weight.device)
        assert self.bias is not None
        for name, own in (("weight", self.weight), ("bias", self.bias)):
            kept = own.detach().unflatten(0, (self.num_classes, self.outputs))[rows].flatten(0, 1)
            setattr(self, name, nn.Parameter(kept))
        self.num_classes, self.out_channels = len(places), len(places) * self.outputs


class Localizer(Network, pipeline_tag="object-detection"):
    """A backbone without its last layer, and two sibling layers for each class: is the object here, and its box.

    As an `rpn` it is "designed in a per-class form" (Appendix C): a 3x3 convolution over a map of the backbone, then
    logistic units and boxes of all classes at each anchor. As an `rcnn` it sees one region, warped to the size of a
    crop, whose only anchor is the region itself; the sibling layers stand in the place of fc.
    """

    def __init__(self, features: Network, plan: LocalizerPlan, num_classes: int):
        super().__init__()
        if features.shared_map is None:
            raise InputError(f"{features.name} cannot be a backbone; give a ResNet, a plain net, VGG or GoogLeNet")
        if plan.map and plan.map not in features.backbone():
            raise InputError(f"{features.name} has no map {plan.map!r}; it has {', '.join(features.backbone())}")
        features.drop_classifier()
        self.features, self.plan, self.num_classes = features, plan, num_classes
        # The stride of the map, and its channels.
        with torch.no_grad():
            features.eval()  # of one image, batch statistics would become running ones
            image = next(features.parameters()).new_zeros(1, features.header["in_channels"], plan.crop, plan.crop)
            seen = self._features(image)
            features.train()
        self.stride = round(plan.crop / seen.shape[-1])
        self._base = (
            base_anchors(plan.anchor_scales, plan.anchor_ratios) + (self.stride - BASE) / 2
        )  # centred in a cell
        # The sibling layers, with the start values of Fast and Faster R-CNN.
        channels, anchors = seen.shape[1], 1
        if plan.stage == "rpn":
            self.conv = nn.Conv2d(channels, plan.channels, 3, padding=1)
            nn.init.normal_(self.conv.weight, std=0.01)
            assert self.conv.bias is not None
            nn.init.zeros_(self.conv.bias)
            channels, anchors = plan.channels, len(plan.anchor_scales) * len(plan.anchor_ratios)
        self.score = PerClass(channels, num_classes, anchors, std=0.01)
        self.box = PerClass(channels, num_classes, BOX * anchors, std=0.01 if plan.stage == "rpn" else 0.001)

    def forward(self, x: Tensor, classes: Tensor | None = None) -> LocalizerOutputs:
        """Images (N, C, H, W), less the mean, and the classes asked of each, int64 (N, k), to logits and boxes.

        Without `classes` all are asked for. An `rcnn` takes regions for images. Outputs are float32.
        """
        seen = self._features(x)
        if self.plan.stage == "rpn":
            seen = F.relu(self.conv(seen), inplace=True)
        logits, deltas = self.score(seen, classes).float(), self.box(seen, classes).float()
        # From (N, k, A, h, w) and (N, k, 4A, h, w) to the order of the anchors: those of a position together.
        logits = logits.movedim(2, -1).flatten(2)
        deltas = deltas.movedim(2, -1).flatten(2).unflatten(2, (-1, BOX))
        return LocalizerOutputs(logits, deltas, self.anchors((seen.shape[2], seen.shape[3]), x))

    def anchors(self, size: tuple[int, int], image: Tensor) -> Tensor:
        """The anchors (P, 4) of a map of `size` (height, width); of an `rcnn` the image itself."""
        if self.plan.stage == "rcnn":
            return torch.tensor([[0.0, 0.0, image.shape[3], image.shape[2]]], device=image.device)
        # The network may have been made without values, so none are kept; anchors are centred in their cells.
        base = base_anchors(self.plan.anchor_scales, self.plan.anchor_ratios) + (self.stride - BASE) / 2
        return anchors_over(size, base.to(image.device), self.stride)

    def _features(self, x: Tensor) -> Tensor:
        """Images to the map of the anchors; of an `rcnn` to one position, (N, D, 1, 1)."""
        features, x = self.features, self.features.large_enough(x)
        if self.plan.stage == "rpn":
            return features.feature_map(x, until=self.plan.map or None)
        values = features.pooled(features.feature_map(x))
        return (features.region_features(values) if features.region_fixed else values)[:, :, None, None]

    def idle(self) -> list[str]:
        """The stages with parameters that no output depends on: those behind the map of an `rpn`."""
        if self.plan.stage == "rcnn":
            return []
        names = [name for name, stage in self.features.stages().items() if any(True for _ in stage.parameters())]
        run = list(self.features.backbone())
        run = run[: run.index(self.plan.map) + 1] if self.plan.map else run
        return [name for name in names if name not in run]

    def take_classes(self, places: Sequence[int]) -> None:
        """Keep, in place, the layers of the classes at these places alone, in this order."""
        for layer in (self.score, self.box):
            layer.take_classes(places)
        self.num_classes = len(places)

    def backbone(self) -> Mapping[str, Sequence[Layer]]:
        """The stages of the backbone."""
        return self.features.backbone()

    def stages(self) -> Mapping[str, nn.Module]:
        """The stages of the backbone, then `conv` of an `rpn`, `score` and `box`."""
        own = {name: child for name, child in self.named_children() if name != "features"}
        return {**self.features.stages(), **own}


def localizer(features: Network, plan: LocalizerPlan, num_classes: int) -> Localizer:
    """A localizer on the network `features`, which loses its last layer and is a part of it from now on.

    Name and header tell backbone and plan, so that `catalog.build` makes it again.
    """
    made = Localizer(features, plan, num_classes)
    name_network(made, LOCALIZER, features, plan, num_classes, "localizer")
    made.mean = features.mean
    return made
