"""Fig. 7: how strongly the layers of a trained network respond."""

import math
from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from deepres.analysis.mode import evaluating
from deepres.runtime.errors import InputError


class _Spread:
    """The standard deviation of all values of all outputs of one layer, from sums in double precision."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Add one output. As a forward hook it runs before an in-place ReLU or addition changes the output."""
        values = output.detach()
        values = (values.cpu() if values.device.type == "mps" else values).double()  # Apple's GPUs have no double
        self.count += values.numel()
        self.total += values.sum().item()
        self.squares += values.square().sum().item()

    def std(self) -> float:
        mean = self.total / self.count
        return math.sqrt(max(self.squares / self.count - mean * mean, 0.0))


def layer_responses(net: nn.Module, batches: Iterable[Tensor]) -> list[tuple[str, float]]:
    """(name, standard deviation) of the output of each 3x3 layer, after BN and before ReLU or addition, in order.

    `batches` are images (N, C, H, W) on the network's device. The standard deviation is the population's, over all
    images, positions and channels at once. The first convolution of a CIFAR net is 3x3 and counts, so 20 layers give 19
    values (the paper does not say). `net` runs in evaluation mode and is not changed. Raises `InputError` if there are
    no images.
    """
    spreads: dict[str, _Spread] = {name: _Spread() for name, module in net.named_modules() if _is_layer(module)}
    seen = 0
    with ExitStack() as hooks, evaluating(net), torch.no_grad():
        for name, spread in spreads.items():
            hooks.enter_context(net.get_submodule(name).register_forward_hook(spread.add))
        for images in batches:
            net(images)
            seen += len(images)
    if not seen:
        raise InputError("layer responses need at least one image; give a test set that is not empty")
    return [(name, spread.std()) for name, spread in spreads.items()]


def _is_layer(module: nn.Module) -> bool:
    """Whether this is a 3x3 convolution with its batch normalization."""
    children = dict(module.named_children())
    conv = children.get("conv")
    return "bn" in children and isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)
