"""Networks for tests: without weights, with noise in every tensor, torchvision's; and what equal scores are."""

from functools import lru_cache

import torch
import torchvision
from torch import nn

from deepres.models.catalog import build
from deepres.models.network import Network

NOISE = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))


def on_meta(name: str, *args: int, **how: object) -> Network:
    """The network without its weights: shapes alone."""
    with torch.device("meta"):
        return build(name, *args, **how)


@torch.no_grad()
def randomise(net):
    """Other noise in every tensor, statistics and biases as after a training, so that a mix-up of any two shows."""
    net = net.to_empty(device="cpu").eval()
    for number, (key, value) in enumerate(net.state_dict().items()):
        noise = NOISE[97 * number :][: value.numel()].view(value.shape)
        if key.endswith("num_batches_tracked"):
            value.fill_(number)
        elif value.dim() > 1:
            value.copy_(noise * (2 / value[0].numel()) ** 0.5)
        elif key.endswith("running_var"):
            value.copy_(noise.sigmoid() + 0.5)
        elif key.endswith("weight"):
            value.copy_(noise.sigmoid() * 0.5 + 0.5)
        else:
            value.copy_(noise * 0.1)
    return net


@lru_cache(maxsize=1)  # they are large
def made(name: str) -> Network:
    """A network of 5 classes, in evaluation: PReLU-net as it starts, others with noise in every tensor.

    Their scores depend on every layer and on the images.
    """
    torch.manual_seed(0)
    if name == "prelu-net":
        return build(name, 5).eval()
    net = on_meta(name, 5).to_empty(device="cpu")
    for key, value in net.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.2, 0.5)
        elif value.dim() > 1:
            value.uniform_(-1, 1).mul_((6 / value[0].numel()) ** 0.5)
        elif key.endswith("weight"):  # of BN: smaller ones let the images die out on the way
            value.uniform_(0.5, 1)
        elif value.is_floating_point():
            value.uniform_(-0.1, 0.3)
    return net.eval()


def warmed(name, crop, num_classes=3, in_channels=3):
    """A network whose running statistics fit its activations, as a trained one's do, so that scores are of size 1."""
    torch.manual_seed(0)
    net = build(name, num_classes, in_channels)
    net(torch.rand(16, in_channels, crop, crop) - 0.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        net(torch.rand(16, in_channels, crop, crop) - 0.5)
    return net.eval()


def settled(name, num_classes=10):
    """A network whose BN has other parameters and statistics than at its start, in which rounding does not grow."""
    torch.manual_seed(0)
    net = build(name, num_classes)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)
    return net.eval()


def theirs(name):
    """A network of torchvision with noise in every tensor."""
    with torch.device("meta"):  # start values would be drawn for nothing
        net = getattr(torchvision.models, name)(weights=None, num_classes=7)
    return randomise(net)


def rival_of_torchvision(name: str, classes: int) -> nn.Module:
    """AlexNet, a VGG or GoogLeNet as torchvision makes it, with its start values."""
    more = {"init_weights": True, "aux_logits": True} if name == "googlenet" else {}
    return getattr(torchvision.models, name.replace("-", "_"))(weights=None, num_classes=classes, **more)


def assert_same_scores(ours, expected):
    """To 1e-5 of the largest score; scores differ, those of two images too, or else equality would show nothing."""
    scale = expected.abs().max()
    assert expected.std() > 1e-3 * scale
    if len(expected) > 1:
        assert torch.pdist(expected.flatten(1), p=torch.inf).min() > 1e-3 * scale
    assert (ours - expected).abs().max() <= 1e-5 * scale


def noise_images(size=40):
    """Two images of noise, RGB in 0..1."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
