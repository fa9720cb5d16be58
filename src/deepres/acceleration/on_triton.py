"""CIFAR networks whose training runs on this project's Triton kernels: the same training in less time on a GPU."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from deepres.models.blocks import Block, ConvBN
from deepres.models.cifar import CifarNet
from deepres.models.shortcuts import Identity, NoShortcut, PaddedIdentity
from deepres.runtime.cache_folder import cache_folder
from deepres.runtime.errors import InputError

if TYPE_CHECKING:
    from deepres.kernels.triton.chain import Backbone

KIND = "the networks of Sec. 4.2 with shortcuts of option A or none, in blocks of two layers"
MOST_IMAGE_CHANNELS = 4
MOST_ELEMENTS = 2**31  # of a map: the kernels count in int32
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class TritonCifarNet(CifarNet):
    """`CifarNet` whose backbone and pooling are one operation in training on a GPU."""

    def forward(self, x: Tensor) -> Any:
        """As `CifarNet`."""
        if not fits(self, x):
            return super().forward(x)
        from deepres.kernels.triton.backbone import pooled

        return self.classify(pooled(_backbone(self), x, _dtype(x)))


def accelerate(net: nn.Module) -> None:
    """Make `net` train on the kernels, in place; parameters and names stay. Raises `InputError` for another kind."""
    if not of_kind(net):
        name = getattr(net, "name", type(net).__name__)
        raise InputError(f"the GPU kernels are for {KIND}, not for {name}; give --kernels off")
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
    net.__class__ = TritonCifarNet


def of_kind(net: nn.Module) -> bool:
    """Whether the kernels are for `net`: a network of Sec. 4.2, plain or of option A, in blocks of two layers."""
    if not isinstance(net, CifarNet):
        return False
    blocks = [block for stage in _stages(net) for block in stage]
    kinds = [[type(part) for part in cast(nn.Sequential, block.residual)] for block in blocks if type(block) is Block]
    shortcuts = {type(block.shortcut) for block in blocks if type(block) is Block}
    return (
        kinds == [[ConvBN, nn.ReLU, ConvBN]] * len(blocks)
        and (shortcuts <= {Identity, PaddedIdentity} or shortcuts == {NoShortcut})
        and type(net.conv1) is ConvBN
        and cast(nn.Conv2d, net.conv1.conv).in_channels <= MOST_IMAGE_CHANNELS
    )


def fits(net: nn.Module, images: Tensor) -> bool:
    """Whether a training step of `net` on `images` (N, channels, H, W) can run on the kernels.

    BN must take the statistics of the whole batch in every layer, and nothing may watch the maps (hooks) or cut the
    network into segments. Parameters are float32; maps are float32, or bf16 under autocast.
    """
    if not (images.is_cuda or _interpreted()) or not torch.is_grad_enabled() or images.requires_grad:
        return False
    if _dtype(images) not in (torch.float32, torch.bfloat16) or images.dtype not in (torch.float32, torch.bfloat16):
        return False
    if 16 * images[:, 0].numel() >= MOST_ELEMENTS or images[:, 0].numel() // 16 < 2:
        return False
    if not of_kind(net) or any(type(stage) is not nn.Sequential for stage in _stages(cast(CifarNet, net))):
        return False
    parts = list(net.modules())
    if any(getattr(part, name) for part in parts[1:] for name in HOOKS):
        return False
    norms = [part for part in parts if isinstance(part, nn.BatchNorm2d)]
    return all(_normalises(norm) for norm in norms) and all(
        weight.dtype == torch.float32 and weight.device == images.device and weight.requires_grad
        for weight in net.parameters()
    )


def _normalises(norm: nn.BatchNorm2d) -> bool:
    """Whether `norm` takes batch statistics and keeps running ones in the ordinary way."""
    return type(norm) is nn.BatchNorm2d and norm.training and norm.track_running_stats and norm.momentum is not None


def _dtype(images: Tensor) -> torch.dtype:
    """Of the maps."""
    device = images.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else images.dtype


def _interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on the processor: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None


def _stages(net: CifarNet) -> tuple[nn.Sequential, ...]:
    return net.conv2_x, net.conv3_x, net.conv4_x


def _backbone(net: CifarNet) -> "Backbone":
    """The layers of `net` as the kernels see them."""
    from deepres.kernels.triton.chain import Backbone, Stage

    layers = [[layer for block in stage for layer in _layers(block)] for stage in _stages(net)]
    layers[0].insert(0, cast(ConvBN, net.conv1))
    stages = [
        Stage([cast(nn.Conv2d, layer.conv) for layer in stage], [cast(nn.BatchNorm2d, layer.bn) for layer in stage])
        for stage in layers
    ]
    carries = not isinstance(cast(Block, net.conv2_x[0]).shortcut, NoShortcut)
    return Backbone(stages, carries)


def _layers(block: nn.Module) -> Iterator[ConvBN]:
    """The two layers of a block."""
    for part in cast(nn.Sequential, cast(Block, block).residual):
        if isinstance(part, ConvBN):
            yield part
