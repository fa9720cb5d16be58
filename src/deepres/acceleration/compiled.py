"""Blocks that PyTorch compiles, once for each shape: the same training in fewer passes over memory."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from deepres.models.blocks import Block, ConvBN

# PyTorch gives up on a function after 8 shapes, and resnet50 has 8 of blocks alone.
SHAPES = 64


class CompiledConvBN(ConvBN):
    """`ConvBN` that is compiled for training; in evaluation the plain one."""

    def forward(self, input: Tensor) -> Tensor:
        """As `ConvBN`."""
        return _compiled(ConvBN.forward)(self, input) if self.training else super().forward(input)


class CompiledBlock(Block):
    """`Block` that is compiled for training; in evaluation the plain one."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`."""
        return _compiled(Block.forward)(self, x) if self.training else super().forward(x)


def compile_blocks(net: nn.Module) -> None:
    """Let the blocks of `net` and its first layer train compiled, in place; parameters and names stay.

    Compiling happens in the first step, for each shape of block and not for each block: 1202 layers take as long as 20.
    """
    for module in net.modules():
        if type(module) is Block:
            module.__class__ = CompiledBlock
    for module in net.children():
        if type(module) is ConvBN:
            module.__class__ = CompiledConvBN


@cache
def _compiled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A module's `forward`, compiled for each shape that it meets; parameters are arguments of its graphs."""
    from torch._dynamo import config

    config.recompile_limit = SHAPES
    config.optimize_ddp = False  # it cuts graphs where gradients are exchanged, and blocks are cut already
    return torch.compile(forward, dynamic=False)
