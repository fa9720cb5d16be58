"""PReLU-net: model A of He et al. 2015, "Delving Deep into Rectifiers" (the paper's reference [13])."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from deepres.models.init import he_initialise
from deepres.models.network import Layer, Network
from deepres.models.pooling import pool_windows

SLOPE = 0.25  # start value for the negative part


class PReLUNet(Network):
    """19 layers: images (N, in_channels, H, W) to scores (N, num_classes); sizes in comments are for 224x224.

    It is VGG-19 with three changes: the first layer is 7x7 with stride 2 and 96 filters; the other three layers of the
    two largest maps are moved to the smaller maps; and the last pool is a spatial pyramid of 7x7, 3x3, 2x2 and 1x1
    bins. A PReLU with one slope a channel follows every layer but the last, dropout of one half follows fc1 and fc2.
    Start values are as that paper derives them for a slope of 1/4, also in fully connected layers.

    The layers, the pyramid and 1.90e10 multiply-adds (ours: 1.906e10) are those of its Table 3. Not checked against its
    text: the three pools, taken from VGG-19 (2x2, stride 2), and the edges of bins that do not divide the map, which
    are those of SPP-net (rounded outwards).
    """

    bins = (7, 3, 2, 1)
    pooling = "max"
    smallest = 15

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = _convolution(in_channels, 96, 7, 2)  # 112x112
        self.conv2_x = _stage(96, 256)  # 56x56
        self.conv3_x = _stage(256, 512)  # 28x28
        self.conv4_x = _stage(512, 512)  # 14x14
        self.fc1 = _fully_connected(512 * sum(n * n for n in self.bins), 4096)
        self.fc2 = _fully_connected(4096, 4096)
        self.fc3 = nn.Linear(4096, num_classes)
        he_initialise(self, SLOPE)

    def backbone(self) -> Mapping[str, Sequence[Layer]]:
        """conv1 to conv4_x, each with its PReLUs; conv2_x to conv4_x begin with their pool."""
        return {name: (child,) for name, child in self.named_children() if name.startswith("conv")}

    def pooled(self, features: Tensor) -> Tensor:
        """The maxima of the pyramid's bins, level by level: (N, 63 * C)."""
        window = (features.shape[2], features.shape[3])
        return torch.cat([pool_windows(features, window, n, self.pooling).flatten(1) for n in self.bins], 1)

    def classify(self, values: Tensor) -> Tensor:
        """The values of the pyramid's bins, level by level, to scores."""
        return self.fc3(self.fc2(self.fc1(values)))


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv, prelu=nn.PReLU(out_channels, SLOPE)))


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """A pool that halves the map, then five 3x3 layers."""
    layers = [_convolution(channels, out_channels, 3) for channels in (in_channels, *4 * (out_channels,))]
    numbered = {str(number): layer for number, layer in enumerate(layers, start=1)}
    return nn.Sequential(OrderedDict(pool=nn.MaxPool2d(2), **numbered))


def _fully_connected(in_values: int, out_values: int) -> nn.Sequential:
    linear, prelu = nn.Linear(in_values, out_values), nn.PReLU(out_values, SLOPE)
    return nn.Sequential(OrderedDict(linear=linear, prelu=prelu, dropout=nn.Dropout(0.5)))
