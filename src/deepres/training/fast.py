"""A network whose blocks run on the project's own kernels: the same training in less time on a processor."""

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from deepres.errors import InputError
from deepres.kernels.library import UnavailableError, library
from deepres.kernels.residual import conv_bn, fits
from deepres.models.blocks import Block, ConvBN
from deepres.models.shortcuts import NoShortcut, Sum

KERNELS = ("auto", "on", "off")


class FastConvBN(ConvBN):
    """`ConvBN` as one operation while training; in evaluation the plain one."""

    def forward(self, input: Tensor) -> Tensor:
        """As `ConvBN`."""
        return apply(self, input)


class FastBlock(Block):
    """`Block` whose layers each run as one operation, the last one with the shortcut's sum and the ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`."""
        layers = [layer for layer in cast(nn.Sequential, self.residual) if isinstance(layer, ConvBN)]
        carried = self.shortcut.carried(x) if isinstance(self.shortcut, Sum) else None
        f = x
        for layer in layers[:-1]:
            f = apply(layer, f, relu=True)
        return apply(layers[-1], f, carried, relu=True)


def apply(layer: ConvBN, x: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
    """[ReLU](layer(x) [+ added]), by the kernels where they can."""
    conv, bn = cast(nn.Conv2d, layer.conv), cast(nn.BatchNorm2d, layer.bn)
    if layer.training and fits(conv, x):
        return conv_bn(conv, bn, x, added, relu)
    result = bn(conv(x))
    if added is not None:
        result = result.add_(added)
    return F.relu(result, inplace=True) if relu else result


def resolve_kernels(kernels: str, device: str, precision: str, bn_group: int, say: Callable[[str], None]) -> bool:
    """Whether a run uses the kernels: `auto` where they can run (processor, fp32, whole batch); `say` is told why not.

    Raises `InputError` for `on` where they cannot.
    """
    if kernels not in KERNELS:
        raise InputError(f"unknown value {kernels!r} of kernels; give one of {', '.join(KERNELS)}")
    if kernels == "off":
        return False
    if device != "cpu" or precision != "fp32" or bn_group:
        if kernels == "on":
            raise InputError(
                "kernels can be on for --device cpu, --precision fp32 and --bn-group 0 alone; leave it out"
            )
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
    """Let the blocks of `net` run on the kernels, in place; parameters and names stay. Gated blocks run as ever."""
    for module in net.modules():
        if type(module) is Block and isinstance(module.shortcut, Sum | NoShortcut):
            module.__class__ = FastBlock
        elif type(module) is ConvBN:
            module.__class__ = FastConvBN
