"""Frozen stages: their parameters and statistics stay as they are while the rest of the network trains."""

from collections.abc import Sequence

from torch import nn

from deepres.models.network import Network
from deepres.runtime.errors import InputError

BATCH_NORM = "bn"


def freeze(net: Network, names: Sequence[str]) -> None:
    """Freeze the parameters of the stages `names` (conv1, conv2_x, ...); `set_training` freezes their statistics.

    The name `bn` stands for all batch normalization of `net`: scale, shift and running statistics. Raises `InputError`
    for a stage that `net` does not have, and where nothing is left to train.
    """
    # Stages without parameters (pooling) cannot be frozen.
    stages = {name: stage for name, stage in net.stages().items() if any(True for _ in stage.parameters())}
    for name in names:
        if name == BATCH_NORM:
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(False)
        elif name in stages:
            stages[name].requires_grad_(False)
        else:
            known = ", ".join([*stages, BATCH_NORM])
            raise InputError(f"{net.name} has no stage {name!r} to freeze; it has {known} (all batch normalization)")
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise InputError(f"all stages of {net.name} are frozen, so that nothing is left to train; leave one out")


def set_training(net: nn.Module) -> None:
    """Put `net` into training mode, but its frozen layers into evaluation mode, so that BN uses running statistics."""
    net.train()
    for module in net.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
