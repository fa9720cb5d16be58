"""The networks that the paper compares with, as torchvision builds them: AlexNet, VGG and GoogLeNet.

Children, names of parameters and start values are torchvision's, and its weights load as they are:
vgg: convolutions N(0, 2 / fan_out), fully connected layers N(0, 0.01^2), biases 0;
googlenet: all weights N(0, 0.01^2), cut at 2, and batch normalization, which its paper did not have;
alexnet: PyTorch's default start values; it is the one-column network of "One weird trick" (Krizhevsky 2014).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise, takewhile
from typing import TypeVar, cast

from torch import Tensor, nn
from torchvision import models as torchvision

from deepres.models.network import Layer, Network

Part = TypeVar("Part")


class _ConvolutionsThenLinear(Network):
    """AlexNet and VGG: the children `features` and `classifier`, with an adaptive average pool between them."""

    region_fixed = True
    avgpool: nn.Module
    classifier: nn.Sequential

    def sections(self) -> Sequence[Sequence[nn.Module]]:
        """The layers of `features` in six sections: five that end with the maps conv1 to conv5, and the last pool."""
        raise NotImplementedError

    def backbone(self) -> Mapping[str, Sequence[Layer]]:
        """conv1 to conv5, each with its ReLUs and the pool before it, then pool5."""
        *convolutions, pool = self.sections()
        return _numbered("conv", 1, convolutions) | {"pool5": pool}

    def pooled(self, features: Tensor) -> Tensor:
        """The averages of the bins."""
        return self.avgpool(features).flatten(1)

    def classify(self, values: Tensor) -> Tensor:
        """The values of the bins to scores."""
        return self.classifier(values)

    @property
    def shared_map(self) -> str:
        """conv5: the pool behind it is replaced by that of the regions (Fast R-CNN)."""
        return "conv5"

    def region_features(self, regions: Tensor) -> Tensor:
        """Regions through fc6 and fc7."""
        return self.classifier(regions.flatten(1))

    def drop_classifier(self) -> None:
        """Remove fc8."""
        *hidden, _ = self.classifier
        self.classifier = nn.Sequential(*hidden)

    def stages(self) -> dict[str, nn.Module]:
        """conv1 to conv5 and the fully connected layers, which are called fc6, fc7 and fc8."""
        convolutions: list[nn.Module] = [nn.ModuleList(section) for section in self.sections()[:-1]]
        linear: list[nn.Module] = [layer for layer in self.classifier if isinstance(layer, nn.Linear)]
        return _numbered("conv", 1, convolutions) | _numbered("fc", 6, linear)


class AlexNet(_ConvolutionsThenLinear, torchvision.AlexNet):
    """Five convolutions and three fully connected layers: images (N, in_channels, H, W) to scores (N, num_classes).

    The last map is pooled to 6x6, which changes nothing at 224x224.
    """

    bins = (6,)
    region_size = 6
    smallest = 63

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__(num_classes)
        _take_channels(self.features[0], in_channels, nn.Conv2d.reset_parameters)

    def sections(self) -> Sequence[Sequence[nn.Module]]:
        """Each ends with the ReLU of one convolution."""
        return _cut(self.features, [n + 1 for n, layer in enumerate(self.features) if isinstance(layer, nn.ReLU)])


class VGG(_ConvolutionsThenLinear, torchvision.VGG):
    """VGG of `depth` 16 or 19 layers: images (N, in_channels, H, W) to scores (N, num_classes).

    The last map is pooled to 7x7, which changes nothing at 224x224. With `batch_norm`, batch normalization follows each
    convolution; the networks of its paper have none.
    """

    bins = (7,)
    region_size = 7
    smallest = 32

    def __init__(self, depth: int, batch_norm: bool, num_classes: int, in_channels: int):
        configuration = torchvision.vgg.cfgs[{16: "D", 19: "E"}[depth]]
        super().__init__(torchvision.vgg.make_layers(configuration, batch_norm), num_classes)
        first = cast(nn.Sequential, self.features)[0]
        _take_channels(first, in_channels, lambda conv: nn.init.kaiming_normal_(conv.weight, mode="fan_out"))

    def sections(self) -> Sequence[Sequence[nn.Module]]:
        """Each has one size of map."""
        features = cast(nn.Sequential, self.features)
        return _cut(features, [n for n, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)])


class GoogLeNet(torchvision.GoogLeNet, Network):
    """GoogLeNet: images (N, in_channels, H, W) to scores (N, num_classes).

    In training it gives three scores: its own and those of two auxiliary classifiers, unless they were dropped.
    """

    smallest = 15

    def __init__(self, num_classes: int, in_channels: int):
        super().__init__(num_classes, aux_logits=True, init_weights=True)
        _take_channels(self.conv1.conv, in_channels, lambda conv: nn.init.trunc_normal_(conv.weight, std=0.01))

    def forward(self, x: Tensor) -> torchvision.GoogLeNetOutputs:
        """Images to scores, before softmax; in training to three, its own first."""
        return super().forward(self.large_enough(x))

    def drop_auxiliary(self) -> None:
        """Remove the auxiliary classifiers, as torchvision's `aux_logits=False` does: training gives one score then."""
        self.aux_logits, self.aux1, self.aux2 = False, None, None

    def backbone(self) -> Mapping[str, Sequence[Layer]]:
        """Every child before the average pool, by torchvision's names: conv1, maxpool1, ..., inception5b."""
        children = takewhile(lambda child: child[0] != "avgpool", self.named_children())
        return {name: (child,) for name, child in children if not name.startswith("aux")}

    def classify(self, values: Tensor) -> Tensor:
        """Average values to scores."""
        return self.fc(self.dropout(values))

    @property
    def shared_map(self) -> str:
        """inception4e, the last map of stride 16."""
        return "inception4e"

    def drop_classifier(self) -> None:
        """Remove the auxiliary classifiers and fc."""
        self.drop_auxiliary()
        del self.fc


vgg16, vgg16_bn, vgg19, vgg19_bn = (partial(VGG, depth, bn) for depth in (16, 19) for bn in (False, True))


def _take_channels(first: object, in_channels: int, start: Callable[[nn.Conv2d], object]) -> None:
    """Let the convolution `first` take `in_channels`, in place; if that changes it, `start` sets its start values."""
    conv = cast(nn.Conv2d, first)
    if in_channels != conv.in_channels:
        filters, _, *kernel = conv.weight.shape
        conv.in_channels, conv.weight = in_channels, nn.Parameter(conv.weight.new_empty(filters, in_channels, *kernel))
        start(conv)


def _cut(features: nn.Sequential, ends: Sequence[int]) -> list[list[nn.Module]]:
    """The layers of `features` in sections, each up to one of `ends`, and the rest."""
    layers = list(features)
    return [layers[start:end] for start, end in pairwise((0, *ends, len(layers)))]


def _numbered(name: str, first: int, parts: Iterable[Part]) -> dict[str, Part]:
    return {f"{name}{number}": part for number, part in enumerate(parts, first)}
