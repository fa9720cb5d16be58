"""The launches that compute the gradients of the kernels."""

# pyright: reportArgumentType=false

from collections.abc import Sequence

from torch import Tensor, nn

from deepres.kernels.triton import tiles
from deepres.kernels.triton.chain import Backbone, Maps, Slopes
from deepres.kernels.triton.forward_pass import patch_size
from deepres.kernels.triton.overlap import overlap
from deepres.kernels.triton.weights import first_weight_gradient, weight_gradient


def of_stage(
    backbone: Backbone, number: int, images: Tensor, maps: Sequence[Maps], slopes: Sequence[Slopes]
) -> list[Tensor]:
    """The gradients of the kernels of a stage: of its first one, then of all others, which have one shape, at once."""
    convs, own = backbone.stages[number].convs, maps[number]
    if number:
        before = maps[number - 1]
        source = before._replace(z=before.z[-1:], x=before.x[-1:], statistics=before.statistics[-1:])
        first = _of_shape(convs[:1], source, own, slopes[number], 0 if backbone.carries else 2)
    else:
        first = [_of_images(convs[0], images, own, slopes[0])]
    behind = Slopes(*(tensor[1:] for tensor in slopes[number]))
    later = own._replace(z=own.z[1:])
    return first + _of_shape(convs[1:], own, later, behind, int(number > 0) if backbone.carries else 2)


def _of_shape(convs: Sequence[nn.Conv2d], source: Maps, own: Maps, slopes: Slopes, from_x: int) -> list[Tensor]:
    """Of convolutions of one shape, each of which takes the next map of `source` to the next one of `own`."""
    conv = convs[0]
    share = tiles.weight_gradient(conv.in_channels, own.z.dtype)
    partial = own.statistics.new_empty((share.splits, len(convs), conv.weight.numel()))
    weight_gradient[(share.splits, -(-9 // share.valid), len(convs))](
        source.z,
        source.statistics,
        source.x if from_x < 2 else source.z,
        slopes.dy,
        own.z,
        slopes.coefficients,
        partial,
        own.positions,
        partial.stride(0),
        partial.stride(1),
        *conv.weight.stride(),
        H=source.height,
        W=source.width,
        HO=own.height,
        WO=own.width,
        STRIDE=conv.stride[0],
        CI=conv.in_channels,
        CO=conv.out_channels,
        FROM_X=from_x,
        TAPS=share.taps,
        VALID=share.valid,
        BM=share.positions,
        **share.options,
        **overlap(own.z.device),
    )
    return [_shaped(row, conv.weight) for row in partial.sum(0)]


def _of_images(conv: nn.Conv2d, images: Tensor, own: Maps, slopes: Slopes) -> Tensor:
    """Of conv1."""
    share = tiles.of_images_gradient(own.z.dtype)
    partial = own.statistics.new_empty((share.splits, conv.weight.numel()))
    first_weight_gradient[(share.splits,)](
        images,
        slopes.dy,
        own.z,
        slopes.coefficients,
        partial,
        own.positions,
        partial.stride(0),
        *images.stride(),
        *conv.weight.stride(),
        channels=conv.in_channels,
        H=own.height,
        W=own.width,
        K=patch_size(conv),
        CO=conv.out_channels,
        BM=share.positions,
        **share.options,
        **overlap(own.z.device),
    )
    return _shaped(partial.sum(0), conv.weight)


def _shaped(values: Tensor, weight: Tensor) -> Tensor:
    """`values` (as many as `weight` has) in its memory format, so that autograd takes them without a copy."""
    return values.as_strided(weight.shape, weight.stride())
