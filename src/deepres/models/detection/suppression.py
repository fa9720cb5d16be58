"""Non-maximum suppression that ends as soon as it has what is asked for."""

import torch
from torch import Tensor
from torchvision.ops import nms

BLOCK = 128  # boxes that are compared at a time; 256 and 512 took longer on two cores


def suppress(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """The places (k,) of at most `most` of the boxes (n, 4), by falling score, none of which overlaps another too much.

    A box is left out if its IoU with a box of a higher score that is kept is above `overlap`. The result is that of
    `torchvision.ops.nms`, cut to `most`. On a processor that compares each kept box with all others, one pair after
    another; here whole blocks are compared with the boxes kept so far, by all threads, and no more blocks than needed.
    """
    if boxes.device.type != "cpu":
        return nms(boxes, scores, overlap)[:most]
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].T.contiguous()  # rows: left, top, right, bottom
    areas = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    kept = torch.empty(0, dtype=torch.int64)
    for start in range(0, boxes.shape[1], BLOCK):
        own = torch.arange(start, min(start + BLOCK, boxes.shape[1]))
        # Those that no kept box suppresses, then one after another among themselves.
        own = own[~_above(boxes, areas, kept, own, overlap).any(0)]
        pairs = _above(boxes, areas, own, own, overlap).triu(1).numpy()
        alive = torch.ones(len(own), dtype=torch.bool).numpy()
        for place in range(len(own)):
            if alive[place]:
                alive &= ~pairs[place]
        kept = torch.cat([kept, own[torch.from_numpy(alive)]])
        if len(kept) >= most:
            break
    return order[kept[:most]]


def _above(boxes: Tensor, areas: Tensor, ones: Tensor, others: Tensor, overlap: float) -> Tensor:
    """Whether the IoU of two boxes is above `overlap`, bool (n, m), of boxes (4, N) at the places `ones`, `others`."""
    one, other = boxes[:, ones, None], boxes[:, None, others]
    width = torch.minimum(one[2], other[2]).sub_(torch.maximum(one[0], other[0])).clamp_(min=0)
    height = torch.minimum(one[3], other[3]).sub_(torch.maximum(one[1], other[1])).clamp_(min=0)
    shared = width.mul_(height)
    union = (areas[ones, None] + areas[None, others]).sub_(shared)
    return shared.div_(union) > overlap
