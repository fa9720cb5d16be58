"""Windows of a map pooled into bins, using only PyTorch's plain pools, which every exporter and runtime supports."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pool_windows(features: Tensor, window: tuple[int, int], bins: int, pooling: str) -> Tensor:
    """Each window of `features` (N, C, H, W), at stride 1, pooled into bins x bins: (N, C * bins * bins, h, w).

    `window` is the height and width in positions, `pooling` is max or average. The bins are those of adaptive pooling:
    their edges are rounded outwards if they do not divide the window.
    """
    pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
    down, across = (size - one for size, one in zip(features.shape[2:], window, strict=True))
    parts: list[Tensor] = []
    for top, bottom in _edges(window[0], bins):
        for left, right in _edges(window[1], bins):
            part = features[:, :, top : bottom + down, left : right + across]
            parts.append(pool(part, (bottom - top, right - left), stride=1))
    return torch.stack(parts, 2).flatten(1, 2)


def _edges(size: int, bins: int) -> list[tuple[int, int]]:
    return [(index * size // bins, -(-(index + 1) * size // bins)) for index in range(bins)]
