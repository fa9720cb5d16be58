"""The outputs of a network by name: one that classifies has `scores`, others may have several."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

SCORES = "scores"  # (N, K), before softmax: what a network gives that returns a tensor, and not a mapping of names
Outputs = Mapping[str, Tensor]  # the first dimension of each is the N images of the batch
Runner = Callable[[Tensor], Outputs]  # images to outputs, as PyTorch or another runtime computes them


def named(outputs: Tensor | Outputs) -> Outputs:
    """What a network returns, by name."""
    return {SCORES: outputs} if isinstance(outputs, Tensor) else outputs


def output_names(net: nn.Module, images: Tensor) -> list[str]:
    """The names of what `net` returns for `images`, in its order."""
    with torch.inference_mode():
        return list(named(net(images)))
