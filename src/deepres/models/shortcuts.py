"""How a block joins its input x and its residual function's output f = F(x): options A, B, C, none, gated.

Each maker takes (in_channels, out_channels, stride) and returns a module. Its forward(x, f) returns the sum before the
block's ReLU, of the shape of f. f is changed in place: it is the output of batch normalization, whose backward pass
does not need it. x is never changed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.models.blocks import ConvBN


class NoShortcut(nn.Module):
    """f alone: a plain network."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """f alone."""
        return f


class Sum(nn.Module):
    """f plus what the shortcut passes on of x."""

    def carried(self, x: Tensor) -> Tensor:
        """What is added to f, of the shape of f, from x (N, in_channels, H, W)."""
        raise NotImplementedError

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """The sum, of the shape of f."""
        return f.add_(self.carried(x))


class Identity(Sum):
    """x + f, equation (1): no parameters."""

    def carried(self, x: Tensor) -> Tensor:
        """x."""
        return x


class PaddedIdentity(Sum):
    """f plus x at every `stride`-th position, with zeros for the new channels: no parameters."""

    def __init__(self, extra_channels: int, stride: int):
        super().__init__()
        self.extra_channels, self.stride = extra_channels, stride

    def carried(self, x: Tensor) -> Tensor:
        """x, subsampled and padded."""
        # An average over one pixel is x[:, :, ::stride, ::stride], but keeps channels_last both ways.
        return self.padded(F.avg_pool2d(x, kernel_size=1, stride=self.stride))

    def padded(self, picked: Tensor) -> Tensor:
        """The subsampled map with channels of zeros appended."""
        return F.pad(picked, (0, 0, 0, 0, 0, self.extra_channels))


class Projection(Sum):
    """W x + f, equation (2): W is a 1x1 convolution with BN."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.projection = ConvBN(in_channels, out_channels, 1, stride)

    def carried(self, x: Tensor) -> Tensor:
        """W x."""
        return self.projection(x)


class GateConv(nn.Conv2d):
    """The convolution of a transform gate; its bias starts negative, so that a unit carries its input."""

    bias_at_start = -2.0


class Gated(nn.Module):
    """T(x) * ReLU(f) + (1 - T(x)) * x with T(x) = sigmoid(3x3 convolution + bias): a highway unit.

    Srivastava et al. 2015: the highway networks of Sec. 2 and Table 6. For x >= 0 the result is >= 0, so the block's
    ReLU behind it changes nothing.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gate = GateConv(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        """The gated mean of x and ReLU(f), of the shape of f."""
        return torch.lerp(x, F.relu(f, inplace=True), torch.sigmoid(self.gate(x)))


def none(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """No shortcut."""
    return NoShortcut()


def option_a(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option A: identity everywhere, zero-padded where the number of channels grows (Sec. 3.3, 4.1)."""
    if _same_shape(in_channels, out_channels, stride):
        return Identity()
    return PaddedIdentity(out_channels - in_channels, stride)


def option_b(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B: a projection where the shape changes, identity elsewhere (Sec. 3.3, 4.1)."""
    if _same_shape(in_channels, out_channels, stride):
        return Identity()
    return Projection(in_channels, out_channels, stride)


def option_c(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option C: projections everywhere (Sec. 4.1)."""
    return Projection(in_channels, out_channels, stride)


def gated(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A highway gate; no shortcut where the shape changes, since a gate needs x and f of one shape."""
    return Gated(in_channels) if _same_shape(in_channels, out_channels, stride) else NoShortcut()


OPTIONS = {"a": option_a, "b": option_b, "c": option_c}


def _same_shape(in_channels: int, out_channels: int, stride: int) -> bool:
    return in_channels == out_channels and stride == 1
