"""Fold batch normalization into the convolution before it: in evaluation both together are one linear map."""

import copy
from typing import cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deepres.models.blocks import ConvBN


def folded(net: nn.Module) -> nn.Module:
    """A copy of `net` with the BN of every `ConvBN` folded into its convolution.

    The copy is for inference only: in evaluation mode, channels-last, without gradients. Its scores (N, num_classes)
    are those of `net` to rounding. `net` is not changed.
    """
    fast = copy.deepcopy(net).eval().requires_grad_(False)
    for layer in fast.modules():
        if isinstance(layer, ConvBN):
            layer.conv = fuse_conv_bn_eval(cast(nn.Conv2d, layer.conv), cast(nn.BatchNorm2d, layer.bn))
            layer.bn = nn.Identity()
    return fast.requires_grad_(False).to(memory_format=torch.channels_last)
