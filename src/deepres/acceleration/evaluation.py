"""The form in which a network in training is tested: folded, and on a GPU captured once for the whole training run."""

from typing import cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from deepres.acceleration.captured_forward import CapturedForward
from deepres.acceleration.folded import folded
from deepres.acceleration.on_cudnn import on_cudnn
from deepres.acceleration.on_kernels import runs_on_kernels
from deepres.models.blocks import ConvBN

CAPTURES = ("cuda",)  # devices with graphs


class EvaluationForm:
    """Gives the fast form of the network of a training run, as often as it is tested.

    On a GPU the form is made at the first test. Later ones copy the weights of the moment into it, so that its CUDA
    graphs stay valid.
    """

    def __init__(self) -> None:
        self._net: nn.Module | None = None
        self._kept: CapturedForward | None = None

    def of(self, net: nn.Module) -> nn.Module:
        """A module with the scores of `net` in evaluation mode, to rounding, until the weights of `net` change."""
        if runs_on_kernels(net):
            return net
        if next(net.parameters()).device.type not in CAPTURES:
            return folded(net)
        if self._kept is None or self._net is not net:
            self._net, self._kept = net, CapturedForward(on_cudnn(folded(net)))
        else:
            refold(net, self._kept.net)
        return self._kept


@torch.no_grad()
def refold(net: nn.Module, fast: nn.Module) -> None:
    """Bring `fast`, which is `folded(net)` of another moment, up to date with `net`, in place: its tensors stay."""
    # All that the two have in common, then the convolutions with their BN.
    own = net.state_dict()
    for name, value in fast.state_dict().items():
        if name in own:
            value.copy_(own[name])
    layers = dict(fast.named_modules())
    for name, layer in net.named_modules():
        if isinstance(layer, ConvBN):
            conv, bn = cast(nn.Conv2d, layer.conv), cast(nn.BatchNorm2d, layer.bn)
            into = cast(nn.Conv2d, cast(ConvBN, layers[name]).conv)
            assert bn.running_mean is not None and bn.running_var is not None and into.bias is not None
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
            )
            into.weight.copy_(weight)
            into.bias.copy_(bias)
