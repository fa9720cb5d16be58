"""Networks for the tests of weights: quick noise in every tensor, and what equal outputs are."""

import torch
import torchvision

NOISE = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))


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


def theirs(name):
    """A network of torchvision."""
    with torch.device("meta"):  # start values would be drawn for nothing
        net = getattr(torchvision.models, name)(weights=None, num_classes=7)
    return randomise(net)


def assert_same_scores(ours, expected):
    """To 1e-5 of the largest score, and the pictures are told apart: else their equality would show nothing."""
    scale = expected.abs().max()
    assert torch.pdist(expected, p=torch.inf).min() > 1e-3 * scale
    assert (ours - expected).abs().max() <= 1e-5 * scale


def images(size=40):
    """Two pictures of noise, RGB in 0..1."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
