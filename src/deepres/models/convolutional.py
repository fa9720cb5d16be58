"""Networks made fully convolutional: scores at every position of an image of any size, for the dense test."""

from typing import cast

import torch
from torch import Tensor, nn

from deepres.models.catalog import input_size
from deepres.models.network import Network
from deepres.models.pooling import pool_windows
from deepres.runtime.errors import InputError


class FullyConvolutional(nn.Module):
    """Images (N, in_channels, H, W) to maps of scores (N, num_classes, h, w), in the form of VGG and He et al. 2015.

    The backbone runs over the whole image. Then every window of its map, at stride 1, is pooled and classified as the
    network does with a crop; a window is as large as the map of one training crop. So ResNets and GoogLeNet average
    7x7 positions at stride 1 and apply fc at every position; VGG's fc6 acts as a 7x7 convolution (AlexNet's: 6x6), fc7
    and fc8 as 1x1; PReLU-net pools its pyramid of every 14x14 window. An image of the training crop's size gives one
    position and the scores of the network.
    """

    def __init__(self, net: Network, window: tuple[int, int]):
        super().__init__()
        self.net, self.window = net, window
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images to maps of scores, before softmax; raises `InputError` where the last map is smaller than a crop's."""
        features = self.net.feature_map(images)
        if features.shape[2] < self.window[0] or features.shape[3] < self.window[1]:
            height, width = images.shape[2:]
            raise InputError(
                f"images of {height}x{width} are smaller than the crop that {self.net.name} is tested with; "
                "resize them to a larger scale"
            )
        values = torch.cat([pool_windows(features, self.window, bins, self.net.pooling) for bins in self.net.bins], 1)
        scores = self.net.classify(values.movedim(1, -1).flatten(0, 2))
        return scores.unflatten(0, (len(values), *values.shape[2:])).movedim(-1, 1)


def fully_convolutional(net: nn.Module, crop: int | None = None) -> nn.Module:
    """`net`, a network of the catalog, as one that gives a map of scores (N, num_classes, h, w) for images of any size.

    `crop` is the size in pixels a side of the images that it was trained on; the default is `catalog.input_size`. The
    result shares its weights with `net`, which is put into evaluation mode. One blank image goes through it. Raises
    `InputError` for a crop below 1.
    """
    network = cast(Network, net).eval()
    size = input_size(network.name) if crop is None else crop
    if size < 1:
        raise InputError(f"the crop must be 1 pixel a side or more, not {size}")
    weight = next(module.weight for module in network.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        height, width = network.feature_map(weight.new_zeros(1, weight.shape[1], size, size)).shape[2:]
    return FullyConvolutional(network, (height, width))
