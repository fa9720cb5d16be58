"""The launches of the backward pass."""

# pyright: reportArgumentType=false

from collections.abc import Sequence

from torch import Tensor

from deepres.kernels.triton import tiles
from deepres.kernels.triton.backward import input_gradient, unpool
from deepres.kernels.triton.chain import Backbone, Layer, Maps, Scratch, Slopes, carried
from deepres.kernels.triton.overlap import overlap
from deepres.kernels.triton.weight_pass import of_stage


def run(backbone: Backbone, images: Tensor, maps: Sequence[Maps], scratch: Scratch, grad: Tensor) -> list[Tensor]:
    """The gradients of `Backbone.parameters`, in turn, from that of the averages, (N, C) and contiguous."""
    slopes = [Slopes.room(stage) for stage in maps]
    _unpool(backbone, maps, slopes, scratch, grad)
    for layer in reversed(list(backbone.layers())):
        _to_input(backbone, layer, maps, slopes, scratch)
    result: list[Tensor] = []
    for number, own in enumerate(slopes):
        kernels = of_stage(backbone, number, images, maps, slopes)
        for kernel, (gamma, beta) in zip(kernels, own.norms, strict=True):
            result += [kernel, gamma, beta]
    return result


def _unpool(backbone: Backbone, maps: Sequence[Maps], slopes: Sequence[Slopes], scratch: Scratch, grad: Tensor) -> None:
    """From the averages to dy behind the last BN."""
    last, own = maps[-1], slopes[-1]
    shortcut, constants = carried(backbone, maps, len(maps) - 1, (len(last.z) - 1) // 2)
    tile = tiles.POOL
    unpool[tile.grid(last.positions)](
        grad,
        last.z[-1],
        last.statistics[-1],
        shortcut,
        own.dy[-1],
        *scratch,
        backbone.stages[-1].norms[-1].weight,
        own.coefficients[-1],
        *own.norms[-1],
        last.positions,
        C=last.z.shape[2],
        H=last.height,
        W=last.width,
        **constants,
        BM=tile.positions,
        ROWS=tile.rows(last.z.shape[2]),
        **tile.options,
        **overlap(last.z.device),
    )


def _to_input(
    backbone: Backbone, layer: Layer, maps: Sequence[Maps], slopes: Sequence[Slopes], scratch: Scratch
) -> None:
    """From dy behind a layer's BN to dy behind the BN of the layer before."""
    own, source = maps[layer.stage], maps[layer.source_stage]
    dy, dy_in = slopes[layer.stage], slopes[layer.source_stage]
    conv = backbone.stages[layer.stage].convs[layer.row]
    through = layer.opens and backbone.carries  # a shortcut begins at the input of this layer
    tile = tiles.input_gradient(conv.in_channels, own.z.dtype)
    input_gradient[tile.grid(source.positions)](
        dy.dy[layer.row],
        own.z[layer.row],
        dy.coefficients[layer.row],
        conv.weight,
        dy.dy[layer.row + 1] if through else dy.dy,
        source.x[layer.block] if through else source.z,
        source.z[layer.source_row],
        source.statistics[layer.source_row],
        dy_in.dy[layer.source_row],
        *scratch,
        backbone.stages[layer.source_stage].norms[layer.source_row].weight,
        dy_in.coefficients[layer.source_row],
        *dy_in.norms[layer.source_row],
        source.positions,
        *conv.weight.stride(),
        H=source.height,
        W=source.width,
        HO=own.height,
        WO=own.width,
        STRIDE=conv.stride[0],
        CI=conv.in_channels,
        CO=conv.out_channels,
        SHORTCUT=conv.stride[0] if through else 0,
        CS=conv.out_channels,
        STORED=through,
        BM=tile.positions,
        ROWS=tile.rows(conv.in_channels),
        UNROLL=tile.unroll,
        **tile.options,
        **overlap(own.z.device),
    )
