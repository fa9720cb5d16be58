"""Networks for tests."""

from functools import lru_cache

import torch
import torchvision
from torch import nn

from deepres.models.catalog import build
from deepres.models.network import Network


def on_meta(name: str, *args: int) -> Network:
    with torch.device("meta"):
        return build(name, *args)


def rival_of_torchvision(name: str, classes: int) -> nn.Module:
    """AlexNet, a VGG or GoogLeNet as torchvision makes it, with its start values."""
    more = {"init_weights": True, "aux_logits": True} if name == "googlenet" else {}
    return getattr(torchvision.models, name.replace("-", "_"))(weights=None, num_classes=classes, **more)


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


def agrees(scores: torch.Tensor, expected: torch.Tensor) -> bool:
    """To 1e-5 of the largest score, and of scores that are not all alike."""
    scale = expected.abs().max()
    assert expected.std() > 1e-3 * scale
    return torch.allclose(scores / scale, expected / scale, rtol=0, atol=1e-5)
