"""The region proposal network (RPN): boxes that may hold an object, whatever its class (Faster R-CNN, Sec. 3.1)."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.models.detection.anchors import BASE
from deepres.models.detection.boxes import clip, decode
from deepres.models.detection.suppression import suppress


class ProposalNetwork(nn.Module):
    """A 3x3 convolution, then two 1x1 convolutions side by side: objectness and boxes of A anchors at each position."""

    def __init__(self, in_channels: int, channels: int, anchors: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.boxes = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.objectness, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(cast(Tensor, layer.bias), 0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map (N, C, h, w) to logits (N, P) and deltas (N, P, 4) of its P = h * w * A anchors, float32."""
        x = F.relu(self.conv(x), inplace=True)
        logits, deltas = self.objectness(x).movedim(1, -1), self.boxes(x).movedim(1, -1)
        return logits.flatten(1).float(), deltas.reshape(len(x), -1, 4).float()


@dataclass(frozen=True)
class Selection:
    """How proposals are selected: the `before` best ones, non-maximum suppression at `overlap`, the `after` best."""

    before: int
    after: int
    overlap: float = 0.7
    smallest: float = 16.0  # pixels a side, in the image as the network sees it


TRAINING, TEST = Selection(12_000, 2_000), Selection(6_000, 300)


@torch.no_grad()
def select(
    logits: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int], how: Selection
) -> tuple[Tensor, Tensor]:
    """The proposals of one image of `size` (height, width), by falling objectness: boxes (k, 4) and logits (k,).

    `logits` (P,), `deltas` (P, 4) and `anchors` (P, 4) are those of the anchors. k may be 0.
    """
    boxes, best, _ = select_places(logits, deltas, anchors, size, how)
    return boxes, best


@torch.no_grad()
def select_places(
    logits: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int], how: Selection
) -> tuple[Tensor, Tensor, Tensor]:
    """As `select`, and the places (k,) among the anchors of which the proposals were made."""
    # Anchors of positions in the padding beside the image are none of its own; they begin where no pixel of it is.
    height, width = size
    x, y = ((anchors[:, :2] + anchors[:, 2:] - BASE) / 2).unbind(1)
    logits = torch.where((x < width) & (y < height), logits, -torch.inf)
    best, places = logits.topk(min(how.before, len(logits)))
    boxes = clip(decode(deltas[places], anchors[places]), size)
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = (((sides >= how.smallest) & (sides > 0)).all(1) & best.isfinite()).nonzero().flatten()
    boxes, best, places = boxes[kept], best[kept], places[kept]
    chosen = suppress(boxes, best, how.overlap, how.after)
    return boxes[chosen], best[chosen], places[chosen]
