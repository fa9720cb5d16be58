"""Regions of a map, pooled to one size (Fast R-CNN, Sec. 2.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from deepres.models.detection.plan import Pooling


def pooled(maps: Tensor, regions: Sequence[Tensor], stride: int, size: int, pooling: Pooling) -> Tensor:
    """Maps (N, C, h, w) and the regions (R_i, 4) of each image, in its pixels, to (R, C, size, size).

    `pool` takes maxima of bins whose edges are rounded to whole positions, both of which belong to the bin, as the
    authors' layer does: so the last pixel of a region, and not its edge, is what is rounded. `align` takes averages of
    bilinear samples (Mask R-CNN). Both are in float32: in bf16 a coordinate beyond 256 is rounded by pixels.
    """
    images = torch.cat([regions[0].new_full((len(own), 1), number) for number, own in enumerate(regions)])
    boxes = torch.cat([images, torch.cat(list(regions))], 1).float()
    if pooling == "align":
        return roi_align(maps.float(), boxes, size, 1 / stride, aligned=True)
    return roi_pool(maps.float(), boxes - boxes.new_tensor([0, 0, 0, 1, 1]), size, 1 / stride)
