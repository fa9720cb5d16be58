"""Region warping: regions of a map as bilinear samples, differentiable in the map and in the boxes (MNC, Sec. 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

REGIONS = 32  # that are warped at a time: all samples of 300 regions of 1024 channels would take a gigabyte


class RegionWarping(nn.Module):
    """The maxima of 2x2 out of `size` x `size` samples of each region, of a map whose stride is `stride`."""

    def __init__(self, stride: int, size: int):
        super().__init__()
        self.stride, self.size = stride, size

    def forward(self, maps: Tensor, regions: Sequence[Tensor]) -> Tensor:
        """Maps (N, C, h, w) and the regions (R_i, 4) of each image, in its pixels, to (R, C, size / 2, size / 2).

        Maps and regions have gradients. Both are in float32: in bf16 a coordinate beyond 256 is rounded by pixels.
        """
        maps = maps.float()
        keeps = torch.is_grad_enabled() and (maps.requires_grad or any(own.requires_grad for own in regions))
        made: list[Tensor] = []
        for place, own in enumerate(regions):
            for some in own.float().split(REGIONS):
                # Samples are four times their maxima: they are made again for the gradient, and not kept.
                args = (maps[place : place + 1], some)
                if keeps:
                    made.append(checkpoint(self._maxima, *args, use_reentrant=False, preserve_rng_state=False))
                else:
                    made.append(self._maxima(*args))
        half = self.size // 2
        return torch.cat(made) if made else maps.new_zeros(0, maps.shape[1], half, half)

    def _maxima(self, image: Tensor, boxes: Tensor) -> Tensor:
        return F.max_pool2d(warped(image, boxes, self.stride, self.size), 2)


def warped(image: Tensor, boxes: Tensor, stride: float, size: int) -> Tensor:
    """Bilinear samples (R, C, size, size) of a map (1, C, h, w) at the centres of the bins of `boxes` (R, 4).

    Boxes are in pixels, of which a position of the map covers `stride`. Samples beside the map are those of its border.
    The result is differentiable in the map and, except where a sample lies on a position, in the boxes.
    """
    height, width = image.shape[2:]
    shares = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    points = low + (high - low) * shares[None, :, None]  # (R, size, 2): x of the columns, y of the rows
    # The edges of the map are -1 and 1.
    points = points * (2 / stride / points.new_tensor([width, height])) - 1
    x = points[:, None, :, 0].expand(-1, size, -1)
    y = points[:, :, None, 1].expand(-1, -1, size)
    grid = torch.stack([x, y], -1).reshape(1, -1, size, 2)  # the rows of all regions below one another
    samples = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return samples[0].unflatten(1, (-1, size)).transpose(0, 1)


def limited(values: Tensor, most: float) -> Tensor:
    """`values`, whose gradient along this way is clamped to -`most` ... `most`, entry by entry."""
    if not (torch.is_grad_enabled() and values.requires_grad):
        return values
    same = values.view_as(values)

    def clamped(gradient: Tensor) -> Tensor:
        return gradient.clamp(-most, most)

    same.register_hook(clamped)
    return same
