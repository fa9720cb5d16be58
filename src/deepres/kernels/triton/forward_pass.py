"""The launches of the forward pass."""

# pyright: reportArgumentType=false, reportCallIssue=false

from collections.abc import Sequence
from typing import Any

import triton
from torch import Tensor, nn

from deepres.kernels.triton import tiles
from deepres.kernels.triton.chain import Backbone, Maps, Sums, carried, nothing
from deepres.kernels.triton.forward import convolve, convolve_images, pool


def run(
    backbone: Backbone, images: Tensor, maps: Sequence[Maps], sums: Sequence[Sums], kernels: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Fill `maps`, update the running statistics, and return the averages (N, C) of the last map, float32."""
    _first(backbone, images, maps[0], sums[0])
    for layer in backbone.layers():
        own, source = maps[layer.stage], maps[layer.source_stage]
        shortcut, constants = nothing(source)
        if layer.opens:
            shortcut, constants = carried(backbone, maps, layer.source_stage, layer.source_row)
        tile = tiles.forward(own.channels, own.z.dtype)
        convolve[tile.grid(own.positions, more=1)](
            *_norm(backbone, maps, sums, layer.source_stage, layer.source_row),
            shortcut,
            source.x[layer.source_row],
            kernels[layer.stage][layer.row],
            own.z[layer.row],
            sums[layer.stage].forward[layer.row],
            own.positions,
            H=source.height,
            W=source.width,
            HO=own.height,
            WO=own.width,
            STRIDE=1 + (layer.stage != layer.source_stage),
            CI=source.channels,
            CO=own.channels,
            COPIES_IN=tiles.COPIES[source.channels],
            COPIES=tiles.COPIES[own.channels],
            **constants,
            BM=tile.positions,
            BAND=tile.band,
            TAPS=tile.taps,
            VALID=tile.valid,
            **tile.options,
        )
    return _averages(backbone, maps, sums, len(images))


def _first(backbone: Backbone, images: Tensor, own: Maps, sums: Sums) -> None:
    """conv1, which reads images of any memory format."""
    conv = backbone.stages[0].convs[0]
    tile = tiles.of_images(own.z.dtype)
    convolve_images[tile.grid(own.positions)](
        images,
        conv.weight,
        own.z[0],
        sums.forward[0],
        own.positions,
        *images.stride(),
        *conv.weight.stride(),
        channels=conv.in_channels,
        H=own.height,
        W=own.width,
        K=patch_size(conv),
        CO=own.channels,
        COPIES=tiles.COPIES[own.channels],
        BM=tile.positions,
        **tile.options,
    )


def _averages(backbone: Backbone, maps: Sequence[Maps], sums: Sequence[Sums], batch: int) -> Tensor:
    """Global average pooling of the last block's output."""
    last, stage, row = maps[-1], len(maps) - 1, len(maps[-1].z) - 1
    result = last.statistics.new_empty((batch, last.channels))
    shortcut, constants = carried(backbone, maps, stage, row)
    tile = tiles.POOL
    pool[(batch + 1,)](
        *_norm(backbone, maps, sums, stage, row),
        shortcut,
        result,
        C=last.channels,
        COPIES=tiles.COPIES[last.channels],
        H=last.height,
        W=last.width,
        **constants,
        BM=tile.positions,
        **tile.options,
    )
    return result


def patch_size(conv: nn.Conv2d) -> int:
    """The length of a 3x3 neighbourhood of all input channels, as a product's length must be."""
    return max(16, triton.next_power_of_2(9 * conv.in_channels))


def _norm(backbone: Backbone, maps: Sequence[Maps], sums: Sequence[Sums], stage: int, row: int) -> tuple[Any, ...]:
    """A layer's output and its BN, as the kernel that normalises it takes them."""
    norm, own = backbone.stages[stage].norms[row], maps[stage]
    running = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    learned = (norm.weight, norm.bias)
    how = (own.positions, norm.eps, norm.momentum)
    return (own.z[row], sums[stage].forward[row], *learned, own.statistics[row], *running, *how)
