"""The networks that the paper compares with, as torchvision builds them: AlexNet, VGG and GoogLeNet.

Children, names of parameters and start values are torchvision's, so that its weights load as they are:
vgg: convolutions N(0, 2 / fan_out), fully connected layers N(0, 0.01^2), biases 0;
googlenet: all weights N(0, 0.01^2), cut at 2, and batch normalization, which its paper did not have;
alexnet: PyTorch's own start values; it is the one-column network of "One weird trick" (Krizhevsky 2014).
"""

from collections.abc import Callable, Iterable
from typing import cast

from torch import Tensor, nn
from torchvision import models as torchvision

from deepres.models.network import Network
from deepres.models.prelu import PReLUNet


class AlexNet(torchvision.AlexNet, Network):
    """Five convolutions and three fully connected layers: images (N, in_channels, H, W) to scores (N, num_classes).

    The last map is pooled to 6x6, which changes nothing at 224x224.
    """

    bins = (6,)
    smallest = 63

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__(num_classes)
        _take_channels(self.features[0], in_channels, nn.Conv2d.reset_parameters)

    def forward(self, x: Tensor) -> Tensor:
        """Images to scores, before softmax."""
        return super().forward(self.large_enough(x))

    def feature_map(self, images: Tensor) -> Tensor:
        """Images to the last pool's output, 6x6 at 224x224."""
        return self.features(images)

    def classify(self, values: Tensor) -> Tensor:
        """The values of 6x6 bins to scores."""
        return self.classifier(values)

    def stages(self) -> dict[str, nn.Module]:
        """Layer by layer."""
        convolutions = (layer for layer in self.features if isinstance(layer, nn.Conv2d))
        return _numbered("conv", 1, convolutions) | _fully_connected(self.classifier)


class VGG(torchvision.VGG, Network):
    """VGG of `depth` 16 or 19 layers: images (N, in_channels, H, W) to scores (N, num_classes).

    The last map is pooled to 7x7, which changes nothing at 224x224. `batch_norm` puts batch normalization behind
    each convolution, which the networks of the paper lack.
    """

    bins = (7,)
    smallest = 32

    def __init__(self, depth: int, batch_norm: bool, num_classes: int, in_channels: int):
        configuration = torchvision.vgg.cfgs[{16: "D", 19: "E"}[depth]]
        super().__init__(torchvision.vgg.make_layers(configuration, batch_norm), num_classes)
        first = cast(nn.Sequential, self.features)[0]
        _take_channels(first, in_channels, lambda conv: nn.init.kaiming_normal_(conv.weight, mode="fan_out"))

    def forward(self, x: Tensor) -> Tensor:
        """Images to scores, before softmax."""
        return super().forward(self.large_enough(x))

    def feature_map(self, images: Tensor) -> Tensor:
        """Images to the last pool's output, 7x7 at 224x224."""
        return self.features(images)

    def classify(self, values: Tensor) -> Tensor:
        """The values of 7x7 bins to scores."""
        return self.classifier(values)

    def stages(self) -> dict[str, nn.Module]:
        """conv1 to conv5, each with one size of map, and the fully connected layers."""
        sizes = [nn.ModuleList()]
        for layer in cast(nn.Sequential, self.features):
            if isinstance(layer, nn.MaxPool2d):
                sizes.append(nn.ModuleList())
            sizes[-1].append(layer)
        return _numbered("conv", 1, sizes[:-1]) | _fully_connected(self.classifier)


class GoogLeNet(torchvision.GoogLeNet, Network):
    """GoogLeNet: images (N, in_channels, H, W) to scores (N, num_classes).

    In training it gives three scores: its own and those of two auxiliary classifiers, where it has them.
    """

    smallest = 15

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__(num_classes, aux_logits=True, init_weights=True)
        _take_channels(self.conv1.conv, in_channels, lambda conv: nn.init.trunc_normal_(conv.weight, std=0.01))

    def forward(self, x: Tensor) -> torchvision.GoogLeNetOutputs:
        """Images to scores, before softmax; in training to three, its own first."""
        return super().forward(self.large_enough(x))

    def drop_auxiliary(self) -> None:
        """Leave one classifier, as torchvision's `aux_logits=False` does: in training, too, it gives its own scores."""
        self.aux_logits, self.aux1, self.aux2 = False, None, None

    def feature_map(self, images: Tensor) -> Tensor:
        """Images to the output of inception5b, 7x7 at 224x224."""
        for name, child in self.named_children():
            if name == "avgpool":
                break
            if not name.startswith("aux"):
                images = child(images)
        return images

    def classify(self, values: Tensor) -> Tensor:
        """Average values to scores."""
        return self.fc(self.dropout(values))


def build_rival(name: str, num_classes: int, in_channels: int) -> Network:
    """Make a network of `catalog.RIVALS`, with its start values from torch's global random state."""
    if name == "alexnet":
        return AlexNet(num_classes, in_channels)
    if name == "googlenet":
        return GoogLeNet(num_classes, in_channels)
    if name == "prelu-net":
        return PReLUNet(num_classes, in_channels)
    vgg, _, normalized = name.partition("-")
    return VGG(int(vgg.removeprefix("vgg")), normalized == "bn", num_classes, in_channels)


def _take_channels(first: object, in_channels: int, start: Callable[[nn.Conv2d], object]) -> None:
    """Let the convolution `first` take `in_channels`, in place; where it did not, `start` sets its start values."""
    conv = cast(nn.Conv2d, first)
    if in_channels != conv.in_channels:
        filters, _, *kernel = conv.weight.shape
        conv.in_channels, conv.weight = in_channels, nn.Parameter(conv.weight.new_empty(filters, in_channels, *kernel))
        start(conv)


def _fully_connected(classifier: nn.Sequential) -> dict[str, nn.Module]:
    """fc6, fc7 and fc8, as they are called behind five convolutions or sizes of map."""
    return _numbered("fc", 6, (layer for layer in classifier if isinstance(layer, nn.Linear)))


def _numbered(name: str, first: int, layers: Iterable[nn.Module]) -> dict[str, nn.Module]:
    return {f"{name}{number}": layer for number, layer in enumerate(layers, first)}
