"""Convolution, batch normalization, addition and ReLU as one operation with few passes over memory.

For the backward pass x, the output of the convolution and the result are kept. Plain PyTorch keeps as much, but reads
and writes the maps twice as often. 3x3 convolutions of stride 1 use Winograd's F(4x4, 3x3). Maps are float32, or bf16
under autocast; Winograd's products and all sums are float32 in both cases.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepres.kernels import stock
from deepres.kernels.library import CHANNELS, address, library
from deepres.kernels.pool import POOL
from deepres.runtime.processor import WIDE

FEW = 512  # positions of all images of a batch, from which on Winograd's kernels are used in training
TILE = 4 * 4  # positions of a map that Winograd's kernels compute at once


class Statistics(NamedTuple):
    """A batch normalization without weight and bias: running mean and variance (C,), epsilon and momentum."""

    mean: Tensor
    variance: Tensor
    eps: float
    momentum: float


def fits(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the kernels can run `conv` and its BN on maps like x: on a CPU, float32 or bf16, weights in float32.

    No maps at all, as where a detector has no regions, are PyTorch's.
    """
    narrow = torch.is_autocast_enabled("cpu")
    known = torch.get_autocast_dtype("cpu") == torch.bfloat16 if narrow else x.dtype in (torch.float32, torch.bfloat16)
    weights = conv.weight.dtype == torch.float32 and conv.out_channels % CHANNELS == 0
    return x.device.type == "cpu" and known and weights and x.numel() > 0


def conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d, x: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
    """[ReLU](bn(conv(x)) [+ added]) with batch statistics; running statistics are updated as in PyTorch.

    x is (N, C, H, W) on the CPU; `added` has the shape of the result. The caller must check `fits`.
    """
    return conv_bn_through(conv, bn, x, added, relu)[0]


def conv_bn_through(
    conv: nn.Conv2d, bn: nn.BatchNorm2d, x: Tensor, added: Tensor | None = None, relu: bool = False, every: int = 1
) -> tuple[Tensor, Tensor]:
    """As `conv_bn`, and x at every `every`-th position for a shortcut; their gradients are added in the same pass.

    The gradient of this x may be changed in place, so nothing else may hold it. The loss must depend on the result, not
    on this x alone. Raises `ValueError` for one value a channel.
    """
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    assert bn.running_mean is not None and bn.running_var is not None
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    momentum = bn.momentum if bn.momentum is not None else 1 / int(bn.num_batches_tracked or 1)  # a plain average
    if x.numel() == x.shape[1]:
        raise ValueError(f"batch statistics need more than one value a channel, and here are maps {tuple(x.shape)}")
    statistics = Statistics(bn.running_mean, bn.running_var, bn.eps, momentum)
    return _ConvBN.apply(x, conv.weight, bn.weight, bn.bias, added, conv.stride, conv.padding, statistics, relu, every)  # pyright: ignore[reportReturnType]


@torch.no_grad()
def conv_bn_scores(conv: nn.Conv2d, bn: nn.BatchNorm2d, x: Tensor, added: Tensor | None, relu: bool) -> Tensor:
    """As `conv_bn`, with the running statistics and without gradients: for evaluation.

    The algorithm of a convolution does not depend on the number of images here, but PyTorch may choose its own by it;
    so the scores of an image are the same in any batch, to rounding.
    """
    assert bn.running_mean is not None and bn.running_var is not None
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    # The convolution, then BN as a scale and a shift, with the addition and the ReLU in the same pass.
    x, kernel = _dense(x), conv.weight
    stride, padding = cast(stock.Pair, conv.stride), cast(stock.Pair, conv.padding)
    if _fits_winograd(x, kernel, stride) and x.shape[2] * x.shape[3] >= TILE:
        result = _convolve(x, kernel, None)
    else:
        result = _dense(stock.convolve(x, kernel, stride, padding, unfolds=False))
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = bn.bias - bn.running_mean * scale
    added = None if added is None else _dense(added.to(x.dtype))
    places = (address(result), address(added), address(result), *_rows(result), address(scale), address(shift))
    library().normalise_add_relu(_narrow(x), *places, relu)
    return result


class _ConvBN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernel: Tensor,
        weight: Tensor,
        bias: Tensor,
        added: Tensor | None,
        stride: stock.Pair,
        padding: stock.Pair,
        statistics: Statistics,
        relu: bool,
        every: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        # The convolution, with the sums of its output and of its squares by channel.
        given, x = x, _dense(x)
        sums = torch.empty(2, len(kernel), dtype=torch.float64)
        if _winograd(x, kernel, stride):
            convolved = _convolve(x, kernel, sums)
        else:
            convolved = _dense(stock.convolve(x, kernel, stride, padding))
            library().sum_rows(_narrow(x), address(convolved), *_rows(convolved), address(sums[0]), address(sums[1]))
        # Batch statistics and the update of the running ones.
        found = torch.empty(4, len(kernel))  # mean, 1 / standard deviation, scale, shift
        affine, running = map(address, (weight, bias)), map(address, (statistics.mean, statistics.variance))
        constants = (statistics.eps, statistics.momentum)
        places = (*map(address, sums), *_rows(convolved), *affine, *constants, *running, *map(address, found))
        library().finish_statistics(*places)
        # Normalization, addition and ReLU in one pass.
        result = POOL.maps(*convolved.shape, dtype=x.dtype)
        added = None if added is None else _dense(added.to(x.dtype))
        arguments = (_narrow(x), address(convolved), address(added), address(result), *_rows(convolved))
        library().normalise_add_relu(*arguments, address(found[2]), address(found[3]), relu)
        ctx.save_for_backward(x, kernel, weight, convolved, result if relu else None, found)
        ctx.stride, ctx.padding, ctx.added, ctx.every = stride, padding, added is not None, every
        return result, given if every == 1 else given[:, :, ::every, ::every]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, kernel, weight, convolved, result, found = ctx.saved_tensors
        # The gradients of BN's weight and bias, and the linear map (`slope`) to those of the convolution.
        dy, through = _dense(gradients[0]), cast(Tensor | None, gradients[1])
        dadded = POOL.maps(*convolved.shape, dtype=x.dtype) if ctx.added else None
        dweight, dbias, *slope = torch.empty(5, len(weight))
        maps = (address(dy), address(result), address(convolved))
        places = map(address, (found[0], found[1], weight, dweight, dbias, *slope))
        library().differentiate_normalization(_narrow(x), *maps, *_rows(convolved), *places)
        # The gradients of x and of the kernel: by Winograd in one pass with those of ReLU and BN, or by PyTorch.
        need_x, need_kernel = ctx.needs_input_grad[:2]
        if _winograd(x, kernel, ctx.stride):
            into = through if ctx.every == 1 else None  # the shortcut's gradient: that of x is added to it in place
            through = None if ctx.every == 1 else through
            dx = None
            if need_x:
                dx = POOL.maps(*x.shape, dtype=x.dtype) if into is None else _dense(into)
            dkernel = torch.empty_like(kernel)
            stride = torch.tensor([kernel.stride(), dkernel.stride()])
            places = (address(x), address(kernel), address(stride), *maps, address(dadded), *map(address, slope))
            wanted = (address(dx), into is not None, address(dkernel))
            library().winograd_backward(_narrow(x), *places, *wanted, *_sizes(x), len(kernel))
        else:
            dconvolved = POOL.maps(*convolved.shape, dtype=x.dtype)
            places = (_narrow(x), *maps, address(dconvolved), address(dadded))
            library().differentiate_add_relu(*places, *_rows(convolved), *map(address, slope))
            sizes = (ctx.stride, ctx.padding, need_x, need_kernel)
            dx, dkernel = stock.differentiate(dconvolved, x, kernel, *sizes)
        # The gradient of the shortcut, unless Winograd has added it.
        if dx is not None and through is not None:
            dx[:, :, :: ctx.every, :: ctx.every].add_(through)
        return dx, dkernel, dweight, dbias, dadded, None, None, None, None, None


def _winograd(x: Tensor, kernel: Tensor, stride: stock.Pair) -> bool:
    """Whether the Winograd kernels run this convolution in training.

    The work of transforming a kernel and its gradient grows with the square of the channels: with few positions it is
    more than Winograd saves.
    """
    return _fits_winograd(x, kernel, stride) and x.numel() >= FEW * x.shape[1]


def _fits_winograd(x: Tensor, kernel: Tensor, stride: stock.Pair) -> bool:
    """Whether the Winograd kernels can run this convolution, and are faster; all 3x3 convolutions here have padding 1.

    Measured (Zen 3 and 5, 32 images): in bf16 they are faster up to 128 channels, since oneDNN multiplies bf16 twice as
    fast as the fp32 that they use; in fp32 up to 256 channels, or 512 without AVX-512.
    """
    most = 128 if stock.multiplied_narrow(x) else 256 if WIDE else 512
    channels = kernel.shape[:2]
    fitting = channels[1] % CHANNELS == 0 and max(channels) <= most
    return kernel.shape[2:] == (3, 3) and stride == (1, 1) and fitting


def _convolve(x: Tensor, kernel: Tensor, sums: Tensor | None) -> Tensor:
    """x * kernel by Winograd; `sums` (2, channels), if given, gets the sums of the result and of its squares."""
    result = POOL.maps(len(x), len(kernel), *x.shape[2:], dtype=x.dtype)
    stride = torch.tensor(kernel.stride())
    places = (address(x), address(kernel), address(stride), address(result))
    filled = (None, None) if sums is None else (address(sums[0]), address(sums[1]))
    library().winograd_convolve(_narrow(x), *places, *_sizes(x), len(kernel), *filled)
    return result


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    """The numbers of images, rows, columns and channels."""
    count, channels, height, width = x.shape
    return count, height, width, channels


def _rows(maps: Tensor) -> tuple[int, int]:
    """The numbers of positions of all images, and of channels."""
    return maps.numel() // maps.shape[1], maps.shape[1]


def _narrow(maps: Tensor) -> bool:
    return maps.dtype == torch.bfloat16


def _dense(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)
