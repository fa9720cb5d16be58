"""Stages of blocks whose training step runs on this project's Triton kernels: the same training on a GPU, faster."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from deepres.models.blocks import Block, ConvBN
from deepres.models.imagenet import ImageNetNet
from deepres.models.shortcuts import Identity, NoShortcut, PaddedIdentity, Projection

if TYPE_CHECKING:
    from deepres.kernels.triton.units import Unit

MULTIPLE = 16  # of which the numbers of channels of all blocks must be multiples


class StageOnTriton(nn.Sequential):
    """A stage of blocks as one operation in training, on a GPU; else the plain one."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) through all children."""
        if not _runs(self, input):
            return super().forward(input)
        children = list(self.children())
        while not isinstance(children[0], Block):
            input = children.pop(0)(input)
        return through(cast(Sequence[Block], children), input)


class ImageNetOnTriton(ImageNetNet):
    """A network of Table 1 whose layers before the blocks are one operation in training, on a GPU."""

    def feature_map(self, x: Tensor, until: str | None = None, since: str | None = None) -> Tensor:
        """As `ImageNetNet`."""
        stages = [layers[0] for layers in self._between(since, until).values()]
        if since is not None or until == "conv1" or not all(_runs(cast(nn.Module, stage), x) for stage in stages):
            return super().feature_map(x, until, since)
        from deepres.kernels.triton.stem import run

        conv, bn = cast(nn.Conv2d, self.conv1.conv), cast(nn.BatchNorm2d, self.conv1.bn)
        x = run(conv, bn, cast(nn.MaxPool2d, self.conv2_x[0]), x)
        # All blocks as one operation; of several processes by stages, so that gradients are exchanged meanwhile.
        chains = [[block for block in cast(nn.Sequential, stage) if isinstance(block, Block)] for stage in stages[1:]]
        together = not (distributed.is_available() and distributed.is_initialized())
        for blocks in [list(chain.from_iterable(chains))] if together else chains:
            x = through(blocks, x)
        return x


def through(blocks: Sequence[Block], x: Tensor) -> Tensor:
    """x (N, C, H, W) through the blocks, on the kernels."""
    from deepres.kernels.triton.blocks import run

    return run([_unit(block) for block in blocks], x)


def fits_blocks(net: nn.Module) -> bool:
    """Whether `net` has stages of blocks that the kernels can run: BN behind each convolution, a sum or no shortcut."""
    return find_spec("triton") is not None and any(_is_stage(module) for module in net.modules())


def accelerate_blocks(net: nn.Module) -> None:
    """Make the stages of `net` run on the kernels in training, in place; parameters and their names stay."""
    for module in net.modules():
        if _is_stage(module):
            module.__class__ = StageOnTriton
    if (
        type(net) is ImageNetNet
        and _fits_stem(net)
        and all(type(net.get_submodule(name)) is StageOnTriton for name in list(net.backbone())[1:])
    ):
        net.__class__ = ImageNetOnTriton


def _is_stage(module: nn.Module) -> bool:
    """Whether a module is a stage, all blocks of which the kernels can run."""
    if type(module) is not nn.Sequential:
        return False
    blocks = [child for child in module if isinstance(child, Block)]
    first = [isinstance(child, Block) for child in module]
    return bool(blocks) and first == sorted(first) and all(_fits(block) for block in blocks)


def _fits(block: Block) -> bool:
    """Whether the kernels can run a block."""
    if type(block) is not Block or type(block.residual) is not nn.Sequential:
        return False
    layers = [child for child in block.residual if not isinstance(child, nn.ReLU)]
    if isinstance(block.shortcut, Projection):
        layers.append(block.shortcut.projection)
    elif not isinstance(block.shortcut, Identity | NoShortcut | PaddedIdentity):
        return False
    return all(_fits_layer(layer) for layer in layers)


def _fits_stem(net: ImageNetNet) -> bool:
    """Whether the kernels can run the layers before the blocks."""
    pool = net.conv2_x[0]
    if type(net.conv2_x) is not StageOnTriton or not isinstance(pool, nn.MaxPool2d):
        return False
    channels = cast(nn.Conv2d, net.conv1.conv).in_channels
    return (pool.kernel_size, pool.stride, pool.dilation) == (3, 2, 1) and _fits_layer(net.conv1, channels)


def _fits_layer(layer: nn.Module, multiple: int = MULTIPLE) -> bool:
    """Whether the kernels can run a convolution and its BN; its input channels are a multiple of `multiple`."""
    if type(layer) is not ConvBN or type(layer.bn) is not nn.BatchNorm2d or type(layer.conv) is not nn.Conv2d:
        return False
    conv, bn = layer.conv, layer.bn
    plain = conv.bias is None and conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    normal = bn.affine and bn.track_running_stats and bn.momentum is not None
    return plain and normal and conv.out_channels % MULTIPLE == 0 and conv.in_channels % multiple == 0


def _runs(stage: nn.Module, x: Tensor) -> bool:
    """Whether the kernels run a stage now: on a GPU, with statistics of the whole batch in all BN."""
    narrow = torch.is_autocast_enabled(x.device.type)
    type_ = torch.get_autocast_dtype(x.device.type) if narrow else x.dtype
    known = type_ in (torch.float32, torch.bfloat16) and (x.is_cuda or _interpreted())
    batch_norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]
    plain = all(type(bn) is nn.BatchNorm2d and bn.weight.dtype == torch.float32 for bn in batch_norms)
    return known and plain and all(bn.training for bn in batch_norms)


def _interpreted() -> bool:
    """Whether Triton runs its kernels on the processor, as the tests do."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def _unit(block: Block) -> "Unit":
    """What the kernels need to know of a block."""
    from deepres.kernels.triton.units import Layer, Padding, Unit

    def layer(of: ConvBN) -> Layer:
        return Layer(cast(nn.Conv2d, of.conv), cast(nn.BatchNorm2d, of.bn))

    layers = tuple(layer(child) for child in cast(nn.Sequential, block.residual) if isinstance(child, ConvBN))
    shortcut: Layer | Padding | str | None = None
    if isinstance(block.shortcut, Projection):
        shortcut = layer(block.shortcut.projection)
    elif isinstance(block.shortcut, PaddedIdentity):
        shortcut = Padding(block.shortcut.stride, block.shortcut.extra_channels)
    elif isinstance(block.shortcut, Identity):
        shortcut = "identity"
    return Unit(layers, shortcut)
