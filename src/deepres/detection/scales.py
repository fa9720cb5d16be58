"""Multi-scale testing: the regions of an image are pooled at two sizes of it, and the features merged (Appendix B)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepres.detection.protocol import longest_at
from deepres.models.detection.detector import Detector, Size
from deepres.models.detection.images import padded
from deepres.models.detection.plan import DetectorPlan
from deepres.models.detection.proposals import Selection, select

REGION = 224  # pixels a side of the region that a network sees best: the images that it was pre-trained on
Limits = tuple[int, int]  # the shorter side of an image, and the longer one at most


def limits_of(plan: DetectorPlan, scales: Sequence[int]) -> tuple[Limits, ...]:
    """The sizes at which regions are pooled, from the least: those of `scales`, or that of the plan."""
    return tuple((scale, longest_at(scale, plan)) for scale in sorted(scales or (plan.side,)))


def two_nearest(areas: Tensor) -> Tensor:
    """The places of the two adjacent scales for each region, int64 (R, 2), the nearest first; one scale: (R, 1).

    `areas` (S, R) are those of the regions at each scale, by rising size. The first is the scale at which the area is
    nearest to 224 x 224 pixels, as in Fast R-CNN; the second is that of its neighbours which is the nearer.
    """
    away = (areas - REGION**2).abs()
    nearest = away.argmin(0, keepdim=True)
    if len(areas) == 1:
        return nearest.T
    # Beside the first and the last scale there is none.
    outside = away.new_full((1, away.shape[1]), torch.inf)
    away = torch.cat([outside, away, outside])
    lower, upper = away.gather(0, nearest), away.gather(0, nearest + 2)
    return torch.cat([nearest, torch.where(lower <= upper, nearest - 1, nearest + 1)]).T


class Pyramid:
    """One image as one network sees it, at several sizes; the map of a size is computed when it is first needed.

    `seen` are the images uint8 (C, h, w) by their limits, on the device of the network, and `mean` (C, 1, 1) is
    subtracted. Regions and proposals are in pixels of an image of size `frame` (height, width).
    """

    def __init__(
        self,
        net: Detector,
        plan: DetectorPlan,
        scales: Sequence[int],
        seen: Mapping[Limits, Tensor],
        mean: Tensor,
        frame: Size,
    ):
        self.net, self.plan, self.seen, self.mean = net, plan, seen, mean
        self.limits, self.frame = limits_of(plan, scales), frame
        self._maps: dict[Limits, Tensor] = {}

    def size(self, limits: Limits) -> Size:
        """The size (height, width) of the image within `limits`."""
        height, width = self.seen[limits].shape[1:]
        return height, width

    def shared(self, limits: Limits) -> Tensor:
        """The map that RPN and regions share, (1, C, h, w), of the image within `limits`."""
        if limits not in self._maps:
            self._maps[limits] = self.net.shared(padded([self.seen[limits]], self.mean))
        return self._maps[limits]

    def proposals(self, how: Selection) -> tuple[Tensor, Tensor]:
        """Proposals (k, 4) and their logits (k,), by falling objectness, from the image at the plan's own side."""
        own = (self.plan.side, self.plan.longest)
        logits, deltas, anchors = self.net.anchored(self.shared(own))
        boxes, scores = select(logits[0], deltas[0], anchors, self.size(own), how)
        return boxes * stretch(self.size(own), self.frame, boxes), scores

    def features(self, regions: Tensor) -> Tensor:
        """The features of the regions (R, 4) before the sibling layers, (R, D): the larger of both scales, by maxout.

        Where the network has context, the whole image is pooled at the scales of the region, too.
        """
        stretches = torch.stack([stretch(self.frame, self.size(limits), regions) for limits in self.limits])
        area = (regions[:, 2:] - regions[:, :2]).prod(1)
        places = two_nearest(area * stretches[:, :2].prod(1, keepdim=True))
        merged: Tensor | None = None
        # Scale by scale, all regions that are pooled there.
        for place in places.unique().tolist() or [0]:
            rows = (places == place).any(1).nonzero().flatten()
            limits = self.limits[place]
            own = [regions[rows] * stretches[place]]
            found = self.net.features_of(self.shared(limits), own, [self.size(limits)])
            if merged is None:
                merged = found.new_full((len(regions), found.shape[1]), -torch.inf)
            merged[rows] = merged[rows].maximum(found)
        assert merged is not None
        return merged


def stretch(before: Size, after: Size, like: Tensor) -> Tensor:
    """What boxes of an image of size `before` are multiplied by where it is resized to `after`: (4,)."""
    return like.new_tensor([after[1] / before[1], after[0] / before[0]], dtype=torch.float32).repeat(2)
