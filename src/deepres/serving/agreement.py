"""How near a network in another form is to the network itself."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepres.serving.pytorch import Run


@dataclass(frozen=True)
class Agreement:
    """How near a form of a network is to the network, over `images` of them.

    `change` is the largest change of a score relative to the largest score, `same` the share (0 to 1) of the images
    with the same best class.
    """

    images: int
    change: float
    same: float


def agreement(run: Run, net: nn.Module, batches: Iterable[Tensor]) -> Agreement:
    """How near `run` is to `net` in evaluation mode, for `batches` of images in the form that both take."""
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        pairs = [(net(images), run(images)) for images in batches]
    net.train(was_training)
    expected, found = (torch.cat(side) for side in zip(*pairs, strict=True))
    change = float((found - expected).abs().max() / expected.abs().max())
    return Agreement(len(found), change, float((found.argmax(1) == expected.argmax(1)).float().mean()))
