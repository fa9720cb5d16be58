"""The launches of the backward pass."""

# pyright: reportArgumentType=false, reportCallIssue=false

from collections.abc import Sequence

from torch import Tensor

from deepres.kernels.triton import tiles
from deepres.kernels.triton.backward import input_gradient, unpool
from deepres.kernels.triton.chain import Backbone, Layer, Maps, Slopes, Sums, carried
from deepres.kernels.triton.weight_pass import of_stage


def run(
    backbone: Backbone,
    images: Tensor,
    maps: Sequence[Maps],
    sums: Sequence[Sums],
    kernels: Sequence[Sequence[Tensor]],
    grad: Tensor,
) -> list[Tensor]:
    """The gradients of `Backbone.parameters`, in turn, from that of the averages, (N, C) and contiguous."""
    slopes = [Slopes.room(stage) for stage in maps]
    _unpool(backbone, maps, slopes, sums, grad)
    for layer in reversed(list(backbone.layers())):
        _to_input(backbone, layer, maps, slopes, sums, kernels)
    result: list[Tensor] = []
    for number, own in enumerate(slopes):
        found = of_stage(backbone, number, images, maps, slopes, sums)
        for kernel, (gamma, beta) in zip(found, own.norms, strict=True):
            result += [kernel, gamma, beta]
    return result


def _unpool(
    backbone: Backbone, maps: Sequence[Maps], slopes: Sequence[Slopes], sums: Sequence[Sums], grad: Tensor
) -> None:
    """From the averages to dy behind the last BN."""
    last = maps[-1]
    shortcut, constants = carried(backbone, maps, len(maps) - 1, len(last.z) - 1)
    tile = tiles.POOL
    unpool[tile.grid(last.positions)](
        grad,
        last.z[-1],
        last.statistics[-1],
        shortcut,
        slopes[-1].dy[-1],
        sums[-1].backward[-1],
        last.positions,
        C=last.channels,
        COPIES=tiles.COPIES[last.channels],
        H=last.height,
        W=last.width,
        **constants,
        BM=tile.positions,
        **tile.options,
    )


def _to_input(
    backbone: Backbone,
    layer: Layer,
    maps: Sequence[Maps],
    slopes: Sequence[Slopes],
    sums: Sequence[Sums],
    kernels: Sequence[Sequence[Tensor]],
) -> None:
    """From dy behind a layer's BN to dy behind the BN of the layer before."""
    own, source = maps[layer.stage], maps[layer.source_stage]
    behind, before = slopes[layer.stage], slopes[layer.source_stage]
    stride = 1 + (layer.stage != layer.source_stage)
    through = layer.opens and backbone.carries  # a shortcut begins at the input of this layer
    tile = tiles.input_gradient(own.channels, own.z.dtype)
    input_gradient[(stride**2 * tile.grid(own.positions)[0],)](
        behind.dy[layer.row],
        own.z[layer.row],
        sums[layer.stage].backward[layer.row],
        own.statistics[layer.row],
        backbone.stages[layer.stage].norms[layer.row].weight,
        *behind.norms[layer.row],
        behind.dz[layer.row],
        own.positions,
        kernels[layer.stage][layer.row],
        behind.dy[layer.row + 1] if through else behind.dy,
        source.x[layer.source_row],
        source.z[layer.source_row],
        source.statistics[layer.source_row],
        before.dy[layer.source_row],
        sums[layer.source_stage].backward[layer.source_row],
        source.positions,
        H=source.height,
        W=source.width,
        HO=own.height,
        WO=own.width,
        STRIDE=stride,
        CI=source.channels,
        CO=own.channels,
        COPIES_IN=tiles.COPIES[source.channels],
        COPIES=tiles.COPIES[own.channels],
        SHORTCUT=through,
        BM=tile.positions,
        BAND=tile.band,
        TAPS=tile.taps if stride == 1 else 1,
        VALID=tile.valid if stride == 1 else 1,
        **tile.options,
    )
