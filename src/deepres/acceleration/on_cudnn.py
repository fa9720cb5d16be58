"""Folded networks on a GPU: a convolution, its bias, the shortcut's addition and the ReLU as one kernel of cuDNN."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.models.blocks import Block, ConvBN
from deepres.models.shortcuts import NoShortcut, Projection, Sum
from deepres.models.staged import StagedNetwork


class CudnnConvBN(ConvBN):
    """`ConvBN` after folding, with the ReLU behind it."""

    with_relu = True

    def forward(self, input: Tensor) -> Tensor:
        """ReLU of `ConvBN`."""
        return _conv_relu(cast(nn.Conv2d, self.conv), input)


class CudnnBlock(Block):
    """`Block` after folding, with one kernel a layer; the last one includes the addition and the ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`."""
        residual = cast(nn.Sequential, self.residual)
        *before, last = [cast(nn.Conv2d, layer.conv) for layer in residual if isinstance(layer, ConvBN)]
        bias, carried = last.bias, None
        if isinstance(self.shortcut, Projection):
            # Its bias is added with that of the last layer, rather than in a pass of its own.
            conv = cast(nn.Conv2d, self.shortcut.projection.conv)
            assert bias is not None and conv.bias is not None
            carried, bias = F.conv2d(x, conv.weight, None, conv.stride, conv.padding), bias + conv.bias
        elif isinstance(self.shortcut, Sum):
            carried = self.shortcut.carried(x)
        for conv in before:
            x = _conv_relu(conv, x)
        return _fused(last, bias, x, carried)


def on_cudnn(net: nn.Module) -> nn.Module:
    """Make the first layer and the blocks of the folded `net` fused ones, in place, except gated blocks.

    Parameters and their names stay.
    """
    for module in net.modules():
        if isinstance(module, Block) and isinstance(module.shortcut, Sum | NoShortcut):
            module.__class__ = CudnnBlock
        elif isinstance(module, StagedNetwork) and isinstance(module.conv1, ConvBN):
            module.conv1.__class__ = CudnnConvBN
    return net


def _conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return _fused(conv, conv.bias, x, None)


def _fused(conv: nn.Conv2d, bias: Tensor | None, x: Tensor, added: Tensor | None) -> Tensor:
    """ReLU(convolution of x + bias [+ added])."""
    padding = cast(tuple[int, int], conv.padding)
    if x.is_cuda and torch.version.cuda:
        how = (bias, conv.stride, padding, conv.dilation, conv.groups)
        try:
            if added is None:
                return torch.cudnn_convolution_relu(x, conv.weight, *how)
            return torch.cudnn_convolution_add_relu(x, conv.weight, added, 1, *how)
        except RuntimeError:
            pass  # cuDNN has no such kernel for this shape and type
    result = F.conv2d(x, conv.weight, bias, conv.stride, padding, conv.dilation, conv.groups)
    return F.relu_(result if added is None else result.add_(added))
