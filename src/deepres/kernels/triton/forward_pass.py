"""The launches of the forward pass."""

# pyright: reportArgumentType=false

from collections.abc import Sequence
from typing import Any

import triton
from torch import Tensor, nn

from deepres.kernels.triton import tiles
from deepres.kernels.triton.chain import Backbone, Maps, Scratch, carried
from deepres.kernels.triton.forward import convolve, convolve_images, pool
from deepres.kernels.triton.overlap import overlap


def run(backbone: Backbone, images: Tensor, maps: Sequence[Maps], scratch: Scratch) -> Tensor:
    """Fill `maps`, update the running statistics, and return the averages (N, C) of the last map, float32."""
    _first(backbone, images, maps[0], scratch)
    for layer in backbone.layers():
        own, source, stage = maps[layer.stage], maps[layer.source_stage], backbone.stages[layer.stage]
        conv, norm = stage.convs[layer.row], stage.norms[layer.row]
        shortcut, constants = carried(backbone, maps, layer.source_stage, layer.block)
        writes = layer.opens and backbone.carries
        tile = tiles.forward(stage.channels, own.z.dtype)
        convolve[tile.grid(own.positions)](
            source.z[layer.source_row],
            source.statistics[layer.source_row],
            shortcut,
            source.x[layer.block] if writes else source.z,
            conv.weight,
            own.z[layer.row],
            *scratch,
            *_norm(norm, own.statistics[layer.row], own.positions),
            *conv.weight.stride(),
            H=source.height,
            W=source.width,
            HO=own.height,
            WO=own.width,
            STRIDE=conv.stride[0],
            CI=conv.in_channels,
            CO=conv.out_channels,
            **constants | ({} if layer.opens else {"SHORTCUT": 0}),
            WRITE=writes,
            BM=tile.positions,
            ROWS=tile.rows(conv.out_channels),
            UNROLL=tile.unroll,
            **tile.options,
            **overlap(images.device),
        )
    return _averages(backbone, maps, len(images))


def _first(backbone: Backbone, images: Tensor, own: Maps, scratch: Scratch) -> None:
    """conv1, which reads images of any memory format."""
    conv, norm = backbone.stages[0].convs[0], backbone.stages[0].norms[0]
    tile = tiles.of_images(own.z.dtype)
    convolve_images[tile.grid(own.positions)](
        images,
        conv.weight,
        own.z[0],
        *scratch,
        *_norm(norm, own.statistics[0], own.positions),
        *images.stride(),
        *conv.weight.stride(),
        channels=conv.in_channels,
        H=own.height,
        W=own.width,
        K=patch_size(conv),
        CO=conv.out_channels,
        BM=tile.positions,
        ROWS=tile.rows(conv.out_channels),
        **tile.options,
        **overlap(images.device),
    )


def _averages(backbone: Backbone, maps: Sequence[Maps], batch: int) -> Tensor:
    """Global average pooling of the last block's output."""
    last = maps[-1]
    result = last.statistics.new_empty((batch, last.z.shape[2]))
    shortcut, constants = carried(backbone, maps, len(maps) - 1, (len(last.z) - 1) // 2)
    how = {"BM": tiles.POOL.positions} | tiles.POOL.options | overlap(result.device)
    pool[(batch,)](
        last.z[-1], last.statistics[-1], shortcut, result, last.z.shape[2], last.height, last.width, **constants, **how
    )
    return result


def patch_size(conv: nn.Conv2d) -> int:
    """The length of a 3x3 neighbourhood of all input channels, as a product's length must be."""
    return max(16, triton.next_power_of_2(9 * conv.in_channels))


def _norm(norm: nn.BatchNorm2d, statistics: Tensor, positions: int) -> tuple[Any, ...]:
    """The arguments of `finish_statistics`."""
    running = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return (statistics, norm.weight, norm.bias, *running, positions, norm.eps, norm.momentum)
