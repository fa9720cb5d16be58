"""The building block of Sec. 3: a residual function F of a few layers, and a shortcut around it."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn import functional as F

# Both make a module from (in_channels, out_channels, stride).
Residual = Callable[[int, int, int], nn.Module]
Shortcut = Callable[[int, int, int], nn.Module]


class ConvBN(nn.Sequential):
    """Convolution, then batch normalization (Sec. 3.4). There is no bias, since BN subtracts the mean.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)), for an odd kernel.
    """

    with_relu = False  # True of a faster form that includes the ReLU behind it

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1):
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


def basic(in_channels: int, out_channels: int, stride: int, layers: int = 2) -> nn.Sequential:
    """F of Fig. 5 left: `layers` 3x3 layers (the paper: two); the first one has the stride."""
    first = ConvBN(in_channels, out_channels, 3, stride)
    return _in_turn([first, *(ConvBN(out_channels, out_channels, 3) for _ in range(layers - 1))])


def bottleneck(in_channels: int, out_channels: int, stride: int, stride_on: str = "1x1") -> nn.Sequential:
    """F of Fig. 5 right: 1x1 down to a quarter of `out_channels`, 3x3, 1x1 back up.

    The first 1x1 has the stride, as in the paper's networks; `stride_on="3x3"` is torchvision's variant.
    """
    width = out_channels // 4
    first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
    layers = ConvBN(in_channels, width, 1, first), ConvBN(width, width, 3, second), ConvBN(width, out_channels, 1)
    return _in_turn(layers)


def _in_turn(layers: Iterable[nn.Module]) -> nn.Sequential:
    """`layers`, numbered from 1, with a ReLU between two of them; the last ReLU follows the addition."""
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for number, layer in enumerate(layers, start=1):
        if number > 1:
            children[f"relu{number - 1}"] = nn.ReLU(inplace=True)
        children[f"layer{number}"] = layer
    return nn.Sequential(children)


class Block(nn.Module):
    """y = ReLU(shortcut(x, F(x))): equations (1) and (2) of the paper if the shortcut adds.

    (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, residual: Residual, shortcut: Shortcut):
        super().__init__()
        self.residual = residual(in_channels, out_channels, stride)
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """x to y."""
        return F.relu(self.shortcut(x, self.residual(x)), inplace=True)


def stage(
    in_channels: int,
    out_channels: int,
    stride: int,
    blocks: int,
    residual: Residual,
    shortcut: Shortcut,
    pool: nn.Module | None = None,
) -> nn.Sequential:
    """Blocks named 1, 2, ... as in the paper (conv3_1 is `conv3_x.1`); `pool`, if given, comes before them.

    The first block changes the number of channels and has the stride; the others keep the shape.
    """
    children: OrderedDict[str, nn.Module] = OrderedDict()
    if pool is not None:
        children["pool"] = pool
    children["1"] = Block(in_channels, out_channels, stride, residual, shortcut)
    for number in range(2, blocks + 1):
        children[str(number)] = Block(out_channels, out_channels, 1, residual, shortcut)
    return nn.Sequential(children)
