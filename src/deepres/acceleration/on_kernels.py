"""Networks whose blocks run on this project's C++ kernels: the same training in less time on a CPU."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.kernels import regions
from deepres.kernels.library import UnavailableError, library
from deepres.kernels.residual import conv_bn, conv_bn_scores, conv_bn_through, fits
from deepres.models.blocks import Block, ConvBN
from deepres.models.detection.regions import RegionPooling
from deepres.models.shortcuts import NoShortcut, PaddedIdentity, Sum
from deepres.runtime.errors import InputError, Say

KERNELS = ("auto", "on", "off")


class FastConvBN(ConvBN):
    """`ConvBN` as one operation, in training, and in evaluation without gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """As `ConvBN`."""
        return apply(self, input)


class FastBlock(Block):
    """`Block` with one operation a layer; the last one includes the addition of the shortcut and the ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`."""
        # The shortcut is taken beside the first layer, so that the gradients of both uses of x are added in one pass.
        layers = [layer for layer in cast(nn.Sequential, self.residual) if isinstance(layer, ConvBN)]
        if not isinstance(self.shortcut, Sum):
            return _in_turn(layers, x, None)
        if len(layers) == 1:
            return _in_turn(layers, x, self.shortcut.carried(x))
        if isinstance(self.shortcut, PaddedIdentity):
            f, picked = _apply_through(layers[0], x, self.shortcut.stride)
            carried = self.shortcut.padded(picked)
        else:
            f, x = _apply_through(layers[0], x)
            carried = self.shortcut.carried(x)
        return _in_turn(layers[1:], f, carried)


class FastRegionPooling(RegionPooling):
    """`RegionPooling` by all threads and in the type of the maps: a maximum of bf16 is exact in bf16."""

    def maxima(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """As `RegionPooling`."""
        if regions.fits(maps, boxes):
            return regions.pool_regions(maps, boxes, self.size, self.scale)
        return super().maxima(maps, boxes)


def _in_turn(layers: list[ConvBN], x: Tensor, added: Tensor | None) -> Tensor:
    """x through `layers`, each followed by a ReLU; `added` is added before the last ReLU."""
    for layer in layers[:-1]:
        x = apply(layer, x, relu=True)
    return apply(layers[-1], x, added, relu=True)


def _apply_through(layer: ConvBN, x: Tensor, every: int = 1) -> tuple[Tensor, Tensor]:
    """ReLU(layer(x)), and x at every `every`-th position for the shortcut."""
    conv, bn = cast(nn.Conv2d, layer.conv), cast(nn.BatchNorm2d, layer.bn)
    if bn.training and x.requires_grad and fits(conv, x):
        return conv_bn_through(conv, bn, x, relu=True, every=every)
    return apply(layer, x, relu=True), x[:, :, ::every, ::every]


def apply(layer: ConvBN, x: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
    """[ReLU](layer(x) [+ added]), by the kernels where they can run it, else by PyTorch."""
    conv, bn = cast(nn.Conv2d, layer.conv), cast(nn.BatchNorm2d, layer.bn)
    if bn.training and fits(conv, x):  # frozen statistics are no batch statistics
        return conv_bn(conv, bn, x, added, relu)
    normalises = isinstance(layer.bn, nn.BatchNorm2d)  # False after folding into the convolution
    if normalises and not bn.training and not torch.is_grad_enabled() and fits(conv, x):
        return conv_bn_scores(conv, bn, x, added, relu)
    result = _fixed(conv, bn, x) if normalises and _is_fixed(bn) else bn(conv(x))
    if added is not None:
        result = result.add_(added)
    return F.relu(result, inplace=True) if relu else result


def _is_fixed(bn: nn.BatchNorm2d) -> bool:
    """Whether neither statistics nor scale and shift change: a linear map that does not depend on the batch."""
    return not (bn.training or bn.weight.requires_grad or bn.bias.requires_grad) and bn.running_mean is not None


def _fixed(conv: nn.Conv2d, bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """bn(conv(x)) of fixed BN by the scaled kernel, whose gradient autograd scales: the convolution is not kept."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = bn.bias - bn.running_mean * scale
    return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, conv.padding)


def resolve_kernels(kernels: str, device: str, bn_group: int, say: Say) -> bool:
    """Whether a run uses the kernels: with `auto` if they can run (on a CPU, BN over the whole micro-batch).

    `say` is told if they cannot be compiled. Raises `InputError` for `on` if they cannot run.
    """
    if kernels not in KERNELS:
        raise InputError(f"unknown value {kernels!r} of kernels; give one of {', '.join(KERNELS)}")
    if kernels == "off":
        return False
    if device != "cpu" or bn_group:
        if kernels == "on":
            raise InputError("kernels can be on for --device cpu and --bn-group 0 alone; leave it out")
        return False
    try:
        library()
    except UnavailableError as error:
        if kernels == "on":
            raise InputError(f"the kernels cannot be had: {error}; leave --kernels out") from None
        say(f"{error}; going on with PyTorch's own operations, which take longer")
        return False
    return True


def accelerate(net: nn.Module) -> None:
    """Make blocks, except gated ones, and pooling of regions run on the kernels, in place; parameters stay."""
    for module in net.modules():
        if type(module) is Block and isinstance(module.shortcut, Sum | NoShortcut):
            module.__class__ = FastBlock
        elif type(module) is ConvBN:
            module.__class__ = FastConvBN
    accelerate_regions(net)


def accelerate_regions(net: nn.Module) -> None:
    """Make a detector pool its regions by the kernels, in place."""
    for module in net.modules():
        if type(module) is RegionPooling:
            module.__class__ = FastRegionPooling


def runs_on_kernels(net: nn.Module) -> bool:
    """Whether `accelerate` has changed blocks of `net`; such a network is tested fast without folding BN."""
    return any(isinstance(module, FastBlock) for module in net.modules())
