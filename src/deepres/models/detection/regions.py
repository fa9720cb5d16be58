"""Regions of a map, pooled to one size (Fast R-CNN, Sec. 2.1)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepres.models.detection.plan import Pooling


class RegionPooling(nn.Module):
    """Pooling of regions to `size` x `size` positions of a map whose stride is `stride`.

    `pool` takes maxima of bins whose edges are rounded to whole positions, both of which belong to the bin, as the
    authors' layer does: so the last pixel of a region, and not its edge, is what is rounded. `align` takes averages of
    bilinear samples (Mask R-CNN).
    """

    def __init__(self, stride: int, size: int, pooling: Pooling):
        super().__init__()
        self.size, self.scale, self.pooling = size, 1 / stride, pooling

    def forward(self, maps: Tensor, regions: Sequence[Tensor]) -> Tensor:
        """Maps (N, C, h, w) and the regions (R_i, 4) of each image, in its pixels, to (R, C, size, size).

        Both kinds are in float32: in bf16 a coordinate beyond 256 is rounded by pixels.
        """
        images = torch.cat([regions[0].new_full((len(own), 1), number) for number, own in enumerate(regions)])
        boxes = torch.cat([images, torch.cat(list(regions))], 1).float()
        if self.pooling == "pool":
            return self.maxima(maps, boxes - boxes.new_tensor([0, 0, 0, 1, 1]))
        from torchvision.ops import roi_align  # loading it takes seconds

        return roi_align(maps.float(), boxes, self.size, self.scale, aligned=True)

    def maxima(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """The maxima (R, C, size, size) of boxes (R, 5), an image's number and a box, between whole pixels."""
        from torchvision.ops import roi_pool

        if maps.is_cuda and torch.backends.cudnn.deterministic:
            return deterministic_maxima(maps.float(), boxes, self.size, self.scale)
        return roi_pool(maps.float(), boxes, self.size, self.scale)


class _Maxima(torch.autograd.Function):
    """torchvision's pooling, whose own gradient on a GPU is summed in an order of chance."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, boxes: Tensor, size: int, scale: float) -> Tensor:
        """The maxima, whose places are kept for the gradient."""
        found, places = torch.ops.torchvision.roi_pool(maps, boxes, scale, size, size)
        ctx.save_for_backward(boxes, places)
        ctx.shape = maps.shape
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient of the maps; PyTorch sorts the places, and so sums what falls on one in a fixed order."""
        boxes, places = ctx.saved_tensors
        count, channels, height, width = ctx.shape
        maps = boxes[:, :1].long() * channels + torch.arange(channels, device=boxes.device)
        where = maps[:, :, None, None] * (height * width) + places
        given = torch.where(places >= 0, grads[0], 0)  # a bin without a position has no place
        total = given.new_zeros(count * channels * height * width)
        total.index_put_((where.clamp(min=0).flatten(),), given.flatten(), accumulate=True)
        return total.view(ctx.shape), None, None, None


def deterministic_maxima(maps: Tensor, boxes: Tensor, size: int, scale: float) -> Tensor:
    """`RegionPooling.maxima` with a gradient that is the same to the last bit in every run, also on a GPU."""
    return _Maxima.apply(maps, boxes, size, scale)  # pyright: ignore[reportReturnType]


def pooled(maps: Tensor, regions: Sequence[Tensor], stride: int, size: int, pooling: Pooling) -> Tensor:
    """As `RegionPooling`."""
    return RegionPooling(stride, size, pooling)(maps, regions)
