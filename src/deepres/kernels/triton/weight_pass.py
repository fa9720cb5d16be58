"""The launches that compute the gradients of the kernels."""

# pyright: reportArgumentType=false, reportCallIssue=false

from collections.abc import Sequence

from torch import Tensor, nn

from deepres.kernels.triton import tiles
from deepres.kernels.triton.chain import Backbone, Maps, Slopes, Sums
from deepres.kernels.triton.forward_pass import patch_size
from deepres.kernels.triton.weights import first_weight_gradient, weight_gradient


def of_stage(
    backbone: Backbone,
    number: int,
    images: Tensor,
    maps: Sequence[Maps],
    slopes: Sequence[Slopes],
    sums: Sequence[Sums],
) -> list[Tensor]:
    """The gradients of the kernels of a stage: of its first one, then of all others, which have one shape, at once."""
    convs, own, dz = backbone.stages[number].convs, maps[number], slopes[number].dz
    if number:
        before = maps[number - 1]
        first = _of_shape(convs[:1], before._replace(x=before.x[-1:]), own, dz)
    else:
        first = [_of_images(backbone, images, own, slopes[0], sums[0])]
    return first + _of_shape(convs[1:], own, own, dz[1:])


def _of_shape(convs: Sequence[nn.Conv2d], source: Maps, own: Maps, dz: Tensor) -> list[Tensor]:
    """Of convolutions of one shape, each of which takes the next x of `source`; `dz` is the gradient of the outputs."""
    weight = convs[0].weight
    share = tiles.weight_gradient(source.channels, own.z.dtype)
    partial = own.statistics.new_empty((share.splits, len(convs), weight.numel()))
    weight_gradient[(share.splits, -(-9 // share.valid), len(convs))](
        source.x,
        dz,
        partial,
        source.positions,
        own.positions,
        partial.stride(0),
        partial.stride(1),
        *weight.stride(),
        H=source.height,
        W=source.width,
        HO=own.height,
        WO=own.width,
        STRIDE=convs[0].stride[0],
        CI=source.channels,
        CO=own.channels,
        TAPS=share.taps,
        VALID=share.valid,
        BM=share.positions,
        **share.options,
    )
    return [_shaped(row, weight) for row in partial.sum(0)]


def _of_images(backbone: Backbone, images: Tensor, own: Maps, slopes: Slopes, sums: Sums) -> Tensor:
    """Of conv1, whose dz is not kept."""
    weight = backbone.stages[0].convs[0].weight
    share = tiles.of_images_gradient(own.z.dtype)
    partial = own.statistics.new_empty((share.splits, weight.numel()))
    first_weight_gradient[(share.splits,)](
        images,
        slopes.dy,
        own.z,
        sums.backward,
        own.statistics,
        backbone.stages[0].norms[0].weight,
        *slopes.norms[0],
        partial,
        own.positions,
        partial.stride(0),
        *images.stride(),
        *weight.stride(),
        channels=weight.shape[1],
        H=own.height,
        W=own.width,
        K=patch_size(backbone.stages[0].convs[0]),
        CO=own.channels,
        COPIES=tiles.COPIES[own.channels],
        BM=share.positions,
        **share.options,
    )
    return _shaped(partial.sum(0), weight)


def _shaped(values: Tensor, weight: Tensor) -> Tensor:
    """`values` (as many as `weight` has) in its memory format, so that autograd takes them without a copy."""
    return values.as_strided(weight.shape, weight.stride())
