"""The blocks of a stage as one operation: convolutions by PyTorch's libraries, all between them in few passes.

Of each layer the convolution's input and output are kept, and a bit a value for the ReLU behind an addition; normalised
maps are not. The gradients of a block's two paths are added in the pass that takes the sums for the block before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deepres.kernels.triton import batch_norm
from deepres.kernels.triton.batch_norm import Normalised
from deepres.kernels.triton.convolution import Pair, convolve, differentiate


@dataclass(frozen=True)
class Layer:
    """A convolution without bias, and its BN."""

    conv: nn.Conv2d
    bn: nn.BatchNorm2d

    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """The kernel, and BN's weight and bias."""
        return self.conv.weight, self.bn.weight, self.bn.bias


@dataclass(frozen=True)
class Padding:
    """Option A where the shape changes: every `stride`-th position, with `channels` more channels of zeros."""

    stride: int
    channels: int


@dataclass(frozen=True)
class Unit:
    """A block: its layers, and its shortcut: none, the identity ("identity"), padded, or a projection."""

    layers: tuple[Layer, ...]
    shortcut: Layer | Padding | str | None

    def all_layers(self) -> tuple[Layer, ...]:
        """The layers of the residual function, then the projection."""
        return (*self.layers, self.shortcut) if isinstance(self.shortcut, Layer) else self.layers

    @property
    def picks(self) -> int:
        """The stride at which x is picked once, where all that reads x are 1x1 convolutions of that stride; else 1."""
        readers = [self.layers[0]] if self.shortcut is None else [self.layers[0], self.shortcut]
        strides = {_stride_of_product(reader) for reader in readers}
        return strides.pop() if len(strides) == 1 else 1

    def geometry(self, layer: Layer) -> tuple[Pair, Pair]:
        """Stride and padding of the convolution of a layer."""
        if self.picks > 1 and layer in (self.layers[0], self.shortcut):
            return (1, 1), (0, 0)
        return cast(Pair, layer.conv.stride), cast(Pair, layer.conv.padding)


def _stride_of_product(reader: Layer | Padding | str) -> int:
    """The stride of a 1x1 convolution; 1 for all else."""
    if not isinstance(reader, Layer) or reader.conv.kernel_size != (1, 1) or len(set(reader.conv.stride)) > 1:
        return 1
    return reader.conv.stride[0]


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


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, units: Sequence[Unit], *parameters: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        kernels = iter([kernel.to(x.dtype) for kernel in parameters[::3]])
        saved: list[Tensor] = list(parameters[1::3])
        shapes: list[torch.Size] = []
        for unit in units:
            shapes.append(x.shape)
            x = _forward(unit, x, kernels, saved)
        ctx.units, ctx.shapes = units, shapes
        ctx.save_for_backward(*saved)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = iter(ctx.saved_tensors)
        counts = [len(unit.all_layers()) for unit in ctx.units]
        weights = [list(islice(saved, count)) for count in counts]
        kept = [_read(unit, saved) for unit in ctx.units]
        found: list[tuple[Tensor, ...]] = []
        dy: tuple[Tensor, Tensor | None] = gradients[0].contiguous(memory_format=torch.channels_last), None
        # From the last block to the first; the gradient of a block's input comes in two parts.
        for number in reversed(range(len(ctx.units))):
            needed = number > 0 or ctx.needs_input_grad[0]
            dy, parameters = _backward(ctx.units[number], *kept[number], weights[number], *dy, needed)
            dy = _placed(*dy, ctx.units[number].picks, ctx.shapes[number]) if needed else dy
            found[:0] = parameters
        dx = None if not ctx.needs_input_grad[0] else dy[0] if dy[1] is None else dy[0].add_(dy[1])
        return dx, None, *(gradient for layer in found for gradient in layer)


def _forward(unit: Unit, x: Tensor, kernels: Iterator[Tensor], saved: list[Tensor]) -> Tensor:
    """One block; what its backward pass needs is appended to `saved`."""

    def normalised(layer: Layer, x: Tensor) -> Normalised:
        kernel = next(kernels)
        z = convolve(x, kernel, *unit.geometry(layer))
        result = batch_norm.statistics(z, layer.bn)
        saved.extend((x, kernel, *result))
        return result

    f = x = _every(x, unit.picks)
    for layer in unit.layers[:-1]:
        f = batch_norm.normalise(normalised(layer, f))
    last = normalised(unit.layers[-1], f)
    if unit.shortcut is None:
        return batch_norm.normalise(last)
    carried = normalised(unit.shortcut, x) if isinstance(unit.shortcut, Layer) else _carried(unit.shortcut, x)
    y, bits = batch_norm.normalise_add(last, carried)
    saved.append(bits)
    return y


def _read(unit: Unit, saved: Iterator[Tensor]) -> tuple[list[Kept], Tensor | None]:
    """What `_forward` has saved: each layer's, and the bits of the ReLU behind the addition."""
    kept = [Kept(*islice(saved, 4)) for _ in unit.all_layers()]
    return kept, None if unit.shortcut is None else next(saved)


def _backward(
    unit: Unit,
    kept: Sequence[Kept],
    bits: Tensor | None,
    weights: Sequence[Tensor],
    dy: Tensor,
    other: Tensor | None,
    need_x: bool,
) -> tuple[tuple[Tensor, Tensor | None], list[tuple[Tensor, ...]]]:
    """From dy + other, the gradients of the block's input in two parts, and of the parameters by layer."""
    count = len(unit.layers)
    found: list[tuple[Tensor, ...]] = []
    # The last layer: behind the addition, or behind its own ReLU.
    passed = None
    if bits is None:
        dy = dy if other is None else dy + other
        slope = batch_norm.slope(kept[count - 1].normalised, weights[count - 1], dy)
    else:
        projected = kept[-1].normalised if isinstance(unit.shortcut, Layer) else None
        last = kept[count - 1].normalised
        dy, sums = batch_norm.slope_add(last, weights[count - 1], bits, dy, other, projected)
        slope = batch_norm.finish_slope(sums, 1, last, weights[count - 1])
        # The shortcut.
        if projected is not None:
            of_shortcut = batch_norm.finish_slope(sums, 2, projected, weights[-1])
            passed, parameters = _of_layer(unit, cast(Layer, unit.shortcut), kept[-1], of_shortcut, dy, False, need_x)
            found.append(parameters)
        elif need_x:
            passed = _passed(cast(Padding | str, unit.shortcut), kept[0].x, dy)
    # The layers of the residual function.
    f = dy
    for number in reversed(range(count)):
        if number < count - 1:
            slope = batch_norm.slope(kept[number].normalised, weights[number], f)
        relu = number < count - 1 or bits is None
        needed = number > 0 or need_x
        dx, parameters = _of_layer(unit, unit.layers[number], kept[number], slope, f, relu, needed)
        f = cast(Tensor, dx)
        found.insert(0, parameters)
    return (f, passed), found


def _of_layer(
    unit: Unit, layer: Layer, kept: Kept, slope: batch_norm.Slope, dy: Tensor, relu: bool, need_x: bool
) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """The gradients of a layer's input (if needed), and of its kernel and BN's weight and bias."""
    dz = batch_norm.differentiate(kept.normalised, slope, dy, relu)
    dx, dkernel = differentiate(dz, kept.x, kept.kernel, *unit.geometry(layer), need_x)
    return dx, (dkernel.to(layer.conv.weight.dtype), slope.weight, slope.bias)


def _carried(shortcut: Padding | str, x: Tensor) -> Tensor:
    """What a shortcut without parameters adds."""
    if not isinstance(shortcut, Padding):
        return x
    return F.pad(_every(x, shortcut.stride), (0, 0, 0, 0, 0, shortcut.channels))


def _every(x: Tensor, stride: int) -> Tensor:
    """x at every `stride`-th position: an average over one pixel keeps channels_last."""
    return x if stride == 1 else F.avg_pool2d(x, kernel_size=1, stride=stride)


def _passed(shortcut: Padding | str, x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of x, from that of what the shortcut adds."""
    if not isinstance(shortcut, Padding):
        return dy
    dx = torch.zeros_like(x)
    dx[:, :, :: shortcut.stride, :: shortcut.stride] = dy[:, : x.shape[1]]
    return dx


def _placed(dx: Tensor, other: Tensor | None, stride: int, shape: torch.Size) -> tuple[Tensor, Tensor | None]:
    """The gradient of x (`shape`) from that of x at every `stride`-th position; in two parts as it is for stride 1."""
    if stride == 1:
        return dx, other
    whole = torch.empty(shape, dtype=dx.dtype, device=dx.device, memory_format=torch.channels_last).zero_()
    whole[:, :, ::stride, ::stride] = dx if other is None else dx.add_(other)
    return whole, None
