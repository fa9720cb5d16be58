"""What `blocks` needs to know of a block: its layers and its shortcut."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from deepres.kernels.triton.convolution import Pair


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
