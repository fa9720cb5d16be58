"""A network made fully convolutional: one pass over a large image instead of many crops of it (Sec. 3.4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FullyConvolutional(nn.Module):
    """Images (N, C, H, W) of any size to maps of scores (N, K, h, w), one position for each place of the crop.

    `body` makes the last maps; those of a crop are `side` pixels a side, and that is what average pooling, at
    stride 1, covers before `fc` scores each position as a 1x1 convolution would. Where a map is smaller, the
    pooling covers all of it.
    """

    def __init__(self, body: nn.Module, fc: nn.Linear, side: int):
        super().__init__()
        self.body, self.fc, self.side = body, fc, side

    def forward(self, images: Tensor) -> Tensor:
        """Maps of scores, before softmax; of an image of the crop's size (N, K, 1, 1), what the network gives."""
        maps = self.body(images)
        pooled = F.avg_pool2d(maps, [min(self.side, length) for length in maps.shape[-2:]], stride=1)
        return F.conv2d(pooled, self.fc.weight[:, :, None, None], self.fc.bias)


@torch.no_grad()
def fully_convolutional(net: nn.Module, crop: int) -> FullyConvolutional:
    """The fully convolutional form of a network of this paper, trained on images of `crop` pixels a side.

    It shares the weights of `net` and is in evaluation mode. The children of `net` are conv1, the stages, and fc,
    in the order of the data; between the last two stands global average pooling.
    """
    conv1, *stages, fc = net.children()
    assert isinstance(fc, nn.Linear)
    body = nn.Sequential(conv1, nn.ReLU(), *stages).eval()
    weight = next(conv1.parameters())
    side = body(weight.new_zeros(1, weight.shape[1], crop, crop)).shape[-1]
    return FullyConvolutional(body, fc, side).eval()
