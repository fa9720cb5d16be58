"""A detector as one graph, from a picture to its detections, in operations that other programs know."""

import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align, roi_pool

from deepres.acceleration.folded import folded
from deepres.models.detection.anchors import anchors_over, base_anchors
from deepres.models.detection.boxes import clip, decode
from deepres.models.detection.detector import Detector, located
from deepres.serving.outputs import Outputs

BOXES, SCORES, LABELS = "boxes", "scores", "labels"
ANY = -1e38  # a least score that all but -inf are above
# Boxes (B, n, 4) and scores (B, n), an IoU, the least score and the most boxes that are wanted of each of the B groups,
# to what suppression within each group keeps: group and place of each box, int64 (k, 2), by falling score in a group.
Suppress = Callable[[Tensor, Tensor, float, float, int], Tensor]


def suppress_apart(boxes: Tensor, scores: Tensor, overlap: float, least: float, most: int) -> Tensor:
    """Suppression by torchvision's operation, called once: the groups are moved apart, in float64."""
    groups, places = (scores > least).nonzero().unbind(1)
    own = boxes[groups, places].double()
    beyond = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).amax().double() + 1
    kept = nms(own + (groups * beyond)[:, None], scores[groups, places].double(), overlap)
    return torch.stack([groups[kept], places[kept]], 1)


# The same as an operation of its own: ONNX has it (NonMaxSuppression), but torchvision's not with float64.
suppress_by_group: Suppress = torch.library.custom_op("deepres::suppress_by_group", suppress_apart, mutates_args=())


@suppress_by_group.register_fake  # pyright: ignore[reportFunctionMemberAccess]
def _(boxes: Tensor, scores: Tensor, overlap: float, least: float, most: int) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 2), dtype=torch.int64)


class DetectorGraph(nn.Module):
    """A detector with its BN folded, for pictures uint8 (1, H, W, 3), RGB, already of the size that the network sees.

    It subtracts the mean itself, and gives `boxes` float32 (k, 4) as (left, top, right, bottom) in pixels of the
    picture, `scores` float32 (k,), which fall, and `labels` int64 (k,). They are the detections of `net` by its plan.
    No size is fixed when the graph is traced, and k may be 0.
    """

    outputs: tuple[str, ...] = (BOXES, SCORES, LABELS)
    mean: Tensor
    base: Tensor

    def __init__(self, net: Detector, mean: Tensor, suppress: Suppress):
        super().__init__()
        self.net = cast(Detector, folded(net)).cpu()
        self.plan, self.suppress = net.plan, suppress
        self.register_buffer("mean", mean.detach().cpu())
        self.register_buffer("base", base_anchors(net.plan.anchor_scales, net.plan.anchor_ratios))
        self.eval()

    def forward(self, images: Tensor) -> Outputs:
        """The detections in a picture, by name."""
        size = (images.shape[1], images.shape[2])
        backbone = self.net.features
        shared = self.shared(images)
        regions = self.regions(shared, size)
        features = backbone.region_features(self._pooled(shared, regions))
        around, own = features[:1], features[1:]
        if self.plan.context:
            own = torch.cat([own, around.expand(own.shape[0], -1)], 1)
        logits, deltas = self.net.siblings(own)
        found, _ = self.best(logits.softmax(1)[:, 1:], located(deltas, regions[1:], size))
        return found

    def shared(self, images: Tensor) -> Tensor:
        """The map (1, C, h, w) that RPN and regions share."""
        backbone = self.net.features
        return backbone.feature_map(images.permute(0, 3, 1, 2).float() / 255 - self.mean, until=backbone.shared_map)

    def regions(self, shared: Tensor, size: tuple[int, int]) -> Tensor:
        """The proposals, behind the whole image: that is for the context, and so that there is always a region."""
        return torch.cat([numbers(shared, 0, 0, size[1], size[0])[None], self._proposals(shared, size)])

    def _proposals(self, shared: Tensor, size: tuple[int, int]) -> Tensor:
        """The proposals (k, 4) of the shared map (1, C, h, w), as `models.detection.proposals.select` has them."""
        how = self.net.selection
        logits, deltas = self.net.rpn(shared)
        anchors = anchors_over((shared.shape[2], shared.shape[3]), self.base, self.net.stride)
        # The smaller number stays a formula of the picture's size; a plain slice would fix which one it is.
        order = logits[0].argsort(descending=True)[: torch.sym_min(how.before, anchors.shape[0])]
        boxes = clip(decode(deltas[0][order], anchors[order]), size)
        # Small boxes are passed over by their scores.
        sides = boxes[:, 2:] - boxes[:, :2]
        usable = ((sides >= how.smallest) & (sides > 0)).all(1)
        scores = torch.where(usable, logits[0][order], -torch.inf)
        kept = self.suppress(boxes[None], scores[None], how.overlap, ANY, how.after)
        return boxes[kept[: how.after, 1]]

    def _pooled(self, shared: Tensor, regions: Tensor) -> Tensor:
        """The regions (R, 4) of the shared map (1, C, h, w), as `models.detection.regions.pooled` has them."""
        boxes = torch.cat([torch.zeros_like(regions[:, :1]), regions], 1)
        size, scale = self.net.region_size, 1 / self.net.stride
        if self.plan.pooling == "align":
            return roi_align(shared, boxes, size, scale, aligned=True)
        return roi_pool(shared, boxes - boxes.new_tensor([0, 0, 0, 1, 1]), size, scale)

    def best(self, scores: Tensor, boxes: Tensor) -> tuple[Outputs, Tensor]:
        """The detections, from scores (R, K) and boxes (R, K, 4), as `models.detection.detections.best` has them.

        And the region of each, int64 (k,).
        """
        # Boxes without area are passed over by their scores; suppression is class by class.
        scores = torch.where((boxes[..., 2:] > boxes[..., :2]).all(2), scores, -torch.inf).T.contiguous()
        boxes = boxes.transpose(0, 1).contiguous()
        labels, places = self.suppress(boxes, scores, self.plan.nms, self.plan.threshold, self.plan.most).unbind(1)
        boxes, scores = boxes[labels, places], scores[labels, places]
        best = scores.argsort(descending=True)[: self.plan.most]
        return {BOXES: boxes[best], SCORES: scores[best], LABELS: labels[best]}, places[best]


def numbers(like: Tensor, *values: int) -> Tensor:
    """A tensor (n,) of the type of `like`; lengths of a picture stay formulas of its size when it is traced."""
    return torch.cat([like.new_full((1,), 1.0) * value for value in values])


def program_of(graph: DetectorGraph) -> torch.export.ExportedProgram:
    """The graph as PyTorch traces it, for a picture of any size."""
    example, any_size = torch.zeros(1, 128, 160, 3, dtype=torch.uint8), torch.export.Dim.DYNAMIC
    graph = graph.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`create_unbacked_symint` is deprecated", FutureWarning)  # by torchvision
        return torch.export.export(graph, (example,), dynamic_shapes=({1: any_size, 2: any_size},))
