"""Folded networks on a GPU: a convolution, its bias, the shortcut's addition and the ReLU as one kernel of cuDNN."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.models.blocks import Block, ConvBN
from deepres.models.shortcuts import NoShortcut, Sum


class FusedBlock(Block):
    """`Block` after folding, with one kernel a layer; the last one includes the addition and the ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`."""
        layers = [layer for layer in cast(nn.Sequential, self.residual) if isinstance(layer, ConvBN)]
        carried = self.shortcut.carried(x) if isinstance(self.shortcut, Sum) else None
        for layer in layers[:-1]:
            x = _conv_relu(layer, x)
        return _conv_relu(layers[-1], x, carried)


def fused(net: nn.Module) -> nn.Module:
    """Make the blocks of the folded `net` fused ones, in place, except gated ones; parameters and their names stay."""
    for module in net.modules():
        if isinstance(module, Block) and isinstance(module.shortcut, Sum | NoShortcut):
            module.__class__ = FusedBlock
    return net


def _conv_relu(layer: ConvBN, x: Tensor, added: Tensor | None = None) -> Tensor:
    """ReLU(convolution(x) + bias [+ added])."""
    conv = cast(nn.Conv2d, layer.conv)
    if x.is_cuda and torch.version.cuda:
        padding = cast(tuple[int, int], conv.padding)
        how = (conv.bias, conv.stride, padding, conv.dilation, conv.groups)
        try:
            if added is None:
                return torch.cudnn_convolution_relu(x, conv.weight, *how)
            return torch.cudnn_convolution_add_relu(x, conv.weight, added, 1, *how)
        except RuntimeError:
            pass  # cuDNN has no such kernel for this shape and type
    result = conv(x) if added is None else conv(x).add_(added)
    return F.relu(result, inplace=True)
