"""The blocks of a stage as one operation: convolutions by PyTorch's libraries, all between them in few passes.

Of each layer the convolution's input and output are kept, and a bit a value for the ReLU behind an addition; normalised
maps are not. The gradients of a block's two paths are added in the pass that takes the sums for the block before it.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deepres.kernels.triton import batch_norm, pointwise
from deepres.kernels.triton.batch_norm import Gradient, Normalised, Target
from deepres.kernels.triton.convolution import convolve, differentiate
from deepres.kernels.triton.units import Layer, Padding, Unit


def run(units: Sequence[Unit], x: Tensor) -> Tensor:
    """x through the blocks, with batch statistics; running statistics are updated as in PyTorch.

    Maps are float32, or bf16 under autocast. All BN must be in training mode, with a momentum.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    layers = [layer for unit in units for layer in unit.all_layers()]
    counts = [cast(Tensor, layer.bn.num_batches_tracked) for layer in layers]
    torch._foreach_add_(counts, 1)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    return _Chain.apply(x, units, *parameters)  # pyright: ignore[reportReturnType]


class Kept(NamedTuple):
    """What the backward pass of a layer needs: the input and the kernel of its convolution, z, and its statistics."""

    x: Tensor
    kernel: Tensor
    z: Tensor
    found: Tensor

    @property
    def normalised(self) -> Normalised:
        """z and its statistics."""
        return Normalised(self.z, self.found)


class Sum(NamedTuple):
    """ReLU(BN(z) + carried), not computed yet: `last` has z, and a projection is normalised as well."""

    last: Normalised
    carried: Tensor | Normalised


class Done(NamedTuple):
    """What the backward pass of a block needs: its layers', its ReLU's bits, and the weights of BN by layer."""

    unit: Unit
    kept: list[Kept]
    bits: Tensor | None
    weights: list[Tensor]

    @property
    def target(self) -> Target:
        """Its result."""
        projected = self.kept[-1].normalised if isinstance(self.unit.shortcut, Layer) else None
        return Target(self.kept[len(self.unit.layers) - 1].normalised, self.bits, projected)


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, units: Sequence[Unit], *parameters: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        kernels = iter(_converted(parameters[::3], x.dtype))
        saved: list[Tensor] = list(parameters[1::3])
        shapes: list[torch.Size] = []
        result: Tensor | Sum = x
        for unit in units:
            shapes.append(result.last.z.shape if isinstance(result, Sum) else result.shape)
            result = _forward(unit, result, kernels, saved)
        if isinstance(result, Sum):
            result, bits = batch_norm.normalise_add(*result)
            saved.append(bits)
        ctx.units, ctx.shapes = units, shapes
        ctx.save_for_backward(*saved)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # What the forward pass has kept of each block.
        saved = iter(ctx.saved_tensors)
        weights = [list(islice(saved, len(unit.all_layers()))) for unit in ctx.units]
        blocks = [_read(unit, each, saved) for unit, each in zip(ctx.units, weights, strict=True)]
        # From the last block to the first.
        found: list[tuple[Tensor, ...]] = []
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        gradient = batch_norm.sum_gradients(blocks[-1].target, dy)
        dx: Tensor | Gradient | None = None
        for number in reversed(range(len(blocks))):
            before = blocks[number - 1].target if number else None
            dx, parameters = _backward(blocks[number], gradient, before, ctx.shapes[number], ctx.needs_input_grad[0])
            found[:0] = parameters
            if isinstance(dx, Gradient):
                gradient = dx
        dkernels = _converted([layer[0] for layer in found], weights[0][0].dtype)
        parameters = [each for layer, dkernel in zip(found, dkernels, strict=True) for each in (dkernel, *layer[1:])]
        return cast(Tensor | None, dx), None, *parameters


def _forward(unit: Unit, x: Tensor | Sum, kernels: Iterator[Tensor], saved: list[Tensor]) -> Tensor | Sum:
    """One block; what its backward pass needs is appended to `saved`, its bits by the next one."""

    def convolved(layer: Layer, x: Tensor, kernel: Tensor) -> Normalised:
        stride, padding = unit.geometry(layer)
        if pointwise.fits(x, kernel, stride, pointwise.FORWARD):
            result = pointwise.convolve(x, kernel, layer.bn)
        else:
            result = batch_norm.statistics(convolve(x, kernel, stride, padding), layer.bn)
        saved.extend((x, kernel, *result))
        return result

    # The sum of the block before: on the way of the first layer where it can run it, or where that picks positions.
    kernel, last = next(kernels), None
    if isinstance(x, Sum):
        fits = pointwise.fits(x.last.z, kernel, unit.geometry(unit.layers[0])[0], pointwise.FORWARD)
        if unit.picks == 1 and fits and pointwise.fits_sum(kernel):
            x, bits, last = pointwise.convolve_sum(*x, kernel, unit.layers[0].bn)
            saved.extend((bits, x, kernel, *last))
        else:
            x, bits = batch_norm.normalise_add(*x, unit.picks)
            saved.append(bits)
    else:
        x = _every(x, unit.picks)
    # The layers.
    last = convolved(unit.layers[0], x, kernel) if last is None else last
    for layer in unit.layers[1:]:
        last = convolved(layer, batch_norm.normalise(last), next(kernels))
    if unit.shortcut is None:
        return batch_norm.normalise(last)
    if isinstance(unit.shortcut, Layer):
        return Sum(last, convolved(unit.shortcut, x, next(kernels)))
    return Sum(last, _carried(unit.shortcut, x))


def _read(unit: Unit, weights: list[Tensor], saved: Iterator[Tensor]) -> Done:
    """What `_forward` has saved of a block."""
    kept = [Kept(*islice(saved, 4)) for _ in weights]
    return Done(unit, kept, None if unit.shortcut is None else next(saved), weights)


def _backward(
    block: Done, gradient: Gradient, before: Target | None, shape: torch.Size, need_x: bool
) -> tuple[Tensor | Gradient | None, list[tuple[Tensor, ...]]]:
    """From the gradient behind the BN of a block's last layer: that of its input (`shape`), and of the parameters.

    The first is that of the last layer of the block `before`, or, where there is none, of the input itself if needed.
    """
    unit, kept = block.unit, block.kept
    need_x = need_x or before is not None
    found: list[tuple[Tensor, ...]] = []
    # The shortcut.
    passed = None
    if isinstance(unit.shortcut, Layer):
        passed, parameters = _of_layer(block, len(unit.layers), gradient, None, None, need_x)
        found.append(parameters)
    elif unit.shortcut is not None and need_x:
        passed = _passed(unit.shortcut, kept[0].x, gradient.dy)
    # The layers of the residual function; the gradients of both paths are added in the last step.
    for number in reversed(range(1, len(unit.layers))):
        of_layer, parameters = _of_layer(block, number, gradient, Target(kept[number - 1].normalised), None, True)
        gradient = cast(Gradient, of_layer)
        found.insert(0, parameters)
    direct = before if unit.picks == 1 else None
    dx, parameters = _of_layer(block, 0, gradient, direct, cast(Tensor | None, passed), need_x)
    found.insert(0, parameters)
    if dx is None or isinstance(dx, Gradient):
        return dx, found
    # Where x was picked, or no block is before.
    if before is not None:
        return batch_norm.sum_gradients(before, dx, cast(Tensor | None, passed), unit.picks), found
    dx = dx if passed is None else dx.add_(cast(Tensor, passed))
    return _placed(dx, unit.picks, shape), found


def _of_layer(
    block: Done, number: int, gradient: Gradient, target: Target | None, other: Tensor | None, need_x: bool
) -> tuple[Tensor | Gradient | None, tuple[Tensor, ...]]:
    """The gradients of a layer's input, if needed, and of its kernel and BN's weight and bias.

    With a `target`, whose result is the input, the first is the gradient behind its BN, and `other` is added to it.
    """
    layer, kept = block.unit.all_layers()[number], block.kept[number]
    stride, padding = block.unit.geometry(layer)
    place = 2 if layer is block.unit.shortcut else 1
    slope = batch_norm.finish_slope(gradient.sums, place, kept.normalised, block.weights[number])
    # The gradients of the convolution's result, of its input, and of its kernel.
    if target is not None and pointwise.fits(kept.x, kept.kernel, stride, pointwise.BACK):
        dz, dx = pointwise.differentiate(gradient, kept.normalised, slope, kept.kernel, target, other)
        dkernel = differentiate(dz, kept.x, kept.kernel, stride, padding, False)[1]
    else:
        dz = batch_norm.differentiate(kept.normalised, slope, gradient.dy, not gradient.masked)
        dx, dkernel = differentiate(dz, kept.x, kept.kernel, stride, padding, need_x)
        if target is not None:
            dx = batch_norm.sum_gradients(target, cast(Tensor, dx), other)
    return dx, (dkernel, slope.weight, slope.bias)


def _converted(tensors: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    """Tensors of one type in another one, by one operation."""
    if tensors[0].dtype == dtype:
        return tensors
    result = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(result, list(tensors))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return result


def _carried(shortcut: Padding | str, x: Tensor) -> Tensor:
    """What a shortcut without parameters adds."""
    if not isinstance(shortcut, Padding):
        return x
    return F.pad(_every(x, shortcut.stride), (0, 0, 0, 0, 0, shortcut.channels))


def _every(x: Tensor, stride: int) -> Tensor:
    """x at every `stride`-th position."""
    return x if stride == 1 else x[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last)


def _passed(shortcut: Padding | str, x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of x, from that of what the shortcut adds."""
    if not isinstance(shortcut, Padding):
        return dy
    dx = torch.zeros_like(x)
    dx[:, :, :: shortcut.stride, :: shortcut.stride] = dy[:, : x.shape[1]]
    return dx


def _placed(dx: Tensor, stride: int, shape: torch.Size) -> Tensor:
    """The gradient of x (`shape`) from that of x at every `stride`-th position."""
    if stride == 1:
        return dx
    whole = torch.empty(shape, dtype=dx.dtype, device=dx.device, memory_format=torch.channels_last).zero_()
    whole[:, :, ::stride, ::stride] = dx
    return whole
