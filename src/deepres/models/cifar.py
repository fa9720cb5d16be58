"""Sec. 4.2: the networks for CIFAR-10, and highway networks on the same layout."""

from torch import nn

from deepres.models.blocks import ConvBN, Residual, Shortcut, stage
from deepres.models.staged import StagedNetwork


class CifarNet(StagedNetwork):
    """3x3 convolutions on maps of 32, 16 and 8: images (N, in_channels, H, W) to scores (N, num_classes).

    `blocks` is the number of blocks of each of the three stages. The comment on each line gives the output size for a
    32x32 image. A plain, a residual and a highway network differ in their arguments, not in the layout.
    """

    def __init__(
        self, blocks: tuple[int, ...], residual: Residual, shortcut: Shortcut, num_classes: int, in_channels: int
    ):
        super().__init__()
        n2, n3, n4 = blocks
        self.conv1 = ConvBN(in_channels, 16, 3)  # 32x32
        self.conv2_x = stage(16, 16, 1, n2, residual, shortcut)  # 32x32
        self.conv3_x = stage(16, 32, 2, n3, residual, shortcut)  # 16x16
        self.conv4_x = stage(32, 64, 2, n4, residual, shortcut)  # 8x8
        self.fc = nn.Linear(64, num_classes)  # 1x1


def highway_units(depth: int) -> tuple[int, int, int]:
    """The number of one-layer units of each stage of a highway net: `depth` - 2 (conv1 and fc), spread evenly.

    The remainder goes to the later stages: 19 layers have 5, 6 and 6 units.
    """
    units = depth - 2
    return units // 3, (units + 1) // 3, (units + 2) // 3
