"""Table 1: the networks for ImageNet, and the same with a small stem for 32-pixel images."""

from dataclasses import dataclass

from torch import nn

from deepres.models.blocks import ConvBN, Residual, Shortcut, basic, bottleneck, stage
from deepres.models.staged import StagedNetwork


@dataclass(frozen=True)
class Row:
    """One depth of Table 1: what F is, then output channels and number of blocks of conv2_x to conv5_x."""

    residual: Residual
    channels: tuple[int, int, int, int]
    blocks: tuple[int, ...]


# fmt: off
TABLE_1 = {
    # depth    F           channels: conv2_x conv3_x conv4_x conv5_x    blocks
    18:  Row(basic,      (             64,    128,    256,    512),  (2, 2,  2, 2)),
    34:  Row(basic,      (             64,    128,    256,    512),  (3, 4,  6, 3)),
    50:  Row(bottleneck, (            256,    512,   1024,   2048),  (3, 4,  6, 3)),
    101: Row(bottleneck, (            256,    512,   1024,   2048),  (3, 4, 23, 3)),
    152: Row(bottleneck, (            256,    512,   1024,   2048),  (3, 8, 36, 3)),
}
# fmt: on


@dataclass(frozen=True)
class Stem:
    """The layers before the blocks: conv1 of `kernel` and `stride`, then a max pool or none.

    With `pool_padding` 0 the windows of the pool begin at the corner, and the last window is cut off, as in the
    networks that the authors released for Caffe. At 224 pixels the map has the same size.
    """

    kernel: int
    stride: int
    pool: bool
    pool_padding: int = 1


STEM_224 = Stem(kernel=7, stride=2, pool=True)  # Table 1
STEM_32 = Stem(kernel=3, stride=1, pool=False)  # not in the paper: conv2_x keeps all 32x32 positions


class ImageNetNet(StagedNetwork):
    """A column of Table 1: images (N, in_channels, H, W) to scores (N, num_classes).

    H and W may be any. The comment on each line gives the output size for a 224x224 image and (in brackets, with the
    small stem) for a 32x32 image. A plain and a residual network differ only in `shortcut`.
    """

    def __init__(self, row: Row, shortcut: Shortcut, stem: Stem, num_classes: int, in_channels: int):
        super().__init__()
        residual = row.residual
        c2, c3, c4, c5 = row.channels
        n2, n3, n4, n5 = row.blocks
        padding = stem.pool_padding
        pool = nn.MaxPool2d(3, stride=2, padding=padding, ceil_mode=padding == 0) if stem.pool else None
        self.conv1 = ConvBN(in_channels, 64, stem.kernel, stem.stride)  # 112x112 (32x32)
        self.conv2_x = stage(64, c2, 1, n2, residual, shortcut, pool)  # 56x56 (32x32)
        self.conv3_x = stage(c2, c3, 2, n3, residual, shortcut)  # 28x28 (16x16)
        self.conv4_x = stage(c3, c4, 2, n4, residual, shortcut)  # 14x14 (8x8)
        self.conv5_x = stage(c4, c5, 2, n5, residual, shortcut)  # 7x7 (4x4)
        self.fc = nn.Linear(c5, num_classes)  # 1x1
