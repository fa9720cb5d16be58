"""The plan that Table 1 and the networks of Sec. 4.2 share: conv1, stages of blocks, global average pooling, fc."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from deepres.models.blocks import ConvBN
from deepres.models.network import Layer, Network


class StagedNetwork(Network):
    """A network of the children conv1, conv2_x, conv3_x, ... and fc, the rows of its table in the paper."""

    conv1: nn.Module
    fc: nn.Linear

    def backbone(self) -> Mapping[str, Sequence[Layer]]:
        """conv1 with its ReLU, then each stage of blocks."""
        stages = {name: (child,) for name, child in self.named_children() if name.endswith("_x")}
        includes_relu = isinstance(self.conv1, ConvBN) and self.conv1.with_relu
        return {"conv1": (self.conv1,) if includes_relu else (self.conv1, _relu)} | stages

    @property
    def shared_map(self) -> str:
        """The map of the last stage but one: conv4_x of Table 1 (Appendix A)."""
        return list(self.backbone())[-2]

    def drop_classifier(self) -> None:
        """Remove fc."""
        del self.fc

    def classify(self, values: Tensor) -> Tensor:
        """Average values (N, C) to scores (N, num_classes)."""
        return self.fc(values)


def _relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True)
