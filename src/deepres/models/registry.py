"""The table of networks: what is known of each without building it. It loads no torch, so that reports are quick.

To add a network, add one row to `NETWORKS`. Networks made of blocks have no rows: `spec` reads their depth and variant
off their names, and `SERIES` says what they are called in reports.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from deepres.runtime.figures import CLASSIFICATION, DETECTION, LOCALIZATION, SEGMENTATION

if TYPE_CHECKING:
    from deepres.models.network import Network

Kind = Literal["plain", "residual", "highway"]
Family = Literal["imagenet", "cifar"]
INPUT_SIZE: dict[Family, int] = {"imagenet": 224, "cifar": 32}
CLASSES: dict[Family, int] = {"imagenet": 1000, "cifar": 10}
# What most libraries subtract from RGB in 0..1, and divide by, for networks trained on ImageNet.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIRST, LAST = "conv1.conv.weight", "fc.bias"  # names of tensors in networks made of blocks
DETECTED = 80  # classes of a detector, where no other number is given: those of COCO
DETECTOR = "faster-rcnn-"  # before the name of the backbone of a detector
CASCADE = "mnc-"  # before that of a detector with masks
LOCALIZER = "localizer-"  # before that of a localizer
DETECTORS = (DETECTOR, CASCADE)
HALF = (0.5, 0.5, 0.5)


class Method(NamedTuple):
    """What networks on a backbone are called in reports, and their task, one of `workflows.kinds`."""

    label: str
    task: str


# By what stands before the name of the backbone.
METHODS = {
    DETECTOR: Method("Faster R-CNN", DETECTION),
    CASCADE: Method("MNC", SEGMENTATION),
    LOCALIZER: Method("localizer", LOCALIZATION),
}


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that torchvision publishes, for a network whose tensors have the same names there.

    A tensor called `tensor` tells them; `mean` and `std` (RGB in 0..1) are those of the images that they take.
    """

    tensor: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class Entry:
    """One network.

    `depth` counts weighted layers on the longest way through, without projections; `label` is the name in reports.
    `make` takes the numbers of classes and of input channels to a `Network` with its start values; a text
    "module:attribute" is imported when the network is built. `family` tells the images that the network is laid out
    for: 224x224 (imagenet) or 32x32 (cifar). `first` and `last` are the names of the first layer's weight, which tells
    the input channels, and of the last layer's bias, which tells the classes. `task` is one of `workflows.kinds`.
    """

    depth: int
    label: str
    make: str | Callable[..., "Network"]
    kind: Kind = "plain"
    family: Family = "imagenet"
    has_bn: bool = True
    first: str = FIRST
    last: str = LAST
    published: PublishedWeights | None = None
    task: str = CLASSIFICATION

    @property
    def learns_lengths(self) -> bool:
        """Whether some convolution (of highway gates, too) is not followed by BN, so that its kernel's norm matters."""
        return not self.has_bn or self.kind == "highway"


@dataclass(frozen=True)
class Series:
    """Networks that are called by one word and their depth: resnet56, vgg16-bn."""

    label: str
    kind: Kind

    def label_of(self, depth: str, option: str) -> str:
        """ResNet-56; with an option ResNet-34 C or VGG-16 bn."""
        suffix = f" {option.upper() if len(option) == 1 else option}" if option else ""
        return f"{self.label}-{depth}{suffix}"


SERIES = {
    "resnet": Series("ResNet", "residual"),
    "plain": Series("plain", "plain"),
    "highway": Series("Highway", "highway"),
    "vgg": Series("VGG", "plain"),
}

_RIVALS = "deepres.models.rivals"  # loads torchvision, which takes seconds: only when such a network is built
_FIRST = "features.0.weight"
_features = partial(Entry, first=_FIRST, last="classifier.6.bias", published=PublishedWeights(_FIRST))
_INCEPTION = PublishedWeights("inception3a.branch1.conv.weight", HALF, HALF)
NETWORKS = {
    "alexnet": _features(8, "AlexNet", f"{_RIVALS}:AlexNet", has_bn=False),
    "vgg16": _features(16, "VGG-16", f"{_RIVALS}:vgg16", has_bn=False),
    "vgg16-bn": _features(16, "VGG-16 bn", f"{_RIVALS}:vgg16_bn"),
    "vgg19": _features(19, "VGG-19", f"{_RIVALS}:vgg19", has_bn=False),
    "vgg19-bn": _features(19, "VGG-19 bn", f"{_RIVALS}:vgg19_bn"),
    "googlenet": Entry(22, "GoogLeNet", f"{_RIVALS}:GoogLeNet", published=_INCEPTION),
    "prelu-net": Entry(19, "PReLU-net", "deepres.models.prelu:PReLUNet", has_bn=False, last="fc3.bias"),
}


def method_of(network: str) -> str:
    """What stands before the name of the backbone in that of a network of `METHODS`; nothing in any other name."""
    return next((prefix for prefix in METHODS if network.startswith(prefix)), "")


def backbone_of(network: str) -> str:
    """The name of the backbone of a detector, with masks or without; that of any other network as it is."""
    return network.removeprefix(method_of(network)) if network.startswith(DETECTORS) else network
