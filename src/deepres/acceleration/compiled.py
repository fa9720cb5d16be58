"""Blocks compiled by PyTorch, once for each shape: the same training with fewer passes over memory."""

import os
from collections.abc import Callable
from functools import cache
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from deepres.models.blocks import Block, ConvBN
from deepres.runtime.cache_folder import cache_folder

# PyTorch stops compiling a function after 8 shapes by default, and the blocks of resnet50 alone have 8.
SHAPES = 64
_numbers = count()


class CompiledConvBN(ConvBN):
    """`ConvBN`, compiled in training and plain in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        """As `ConvBN`."""
        return _compiled(ConvBN.forward)(self, input) if self.training else super().forward(input)


class CompiledBlock(Block):
    """`Block`, compiled in training and plain in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`."""
        return _compiled(Block.forward)(self, x) if self.training else super().forward(x)


def compile_blocks(net: nn.Module) -> None:
    """Make the blocks and the first layer of `net` compiled ones, in place; parameters and their names stay.

    The first step compiles each shape of block once, not each block: 1202 layers take as long as 20.
    """
    for module in net.modules():
        if type(module) is Block:
            module.__class__ = CompiledBlock
    for module in net.children():
        if type(module) is ConvBN:
            module.__class__ = CompiledConvBN


@cache
def _compiled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`forward` of a module, compiled for each shape of input; all modules share it, with parameters as arguments."""
    from torch._dynamo import config

    # What is compiled is kept for later runs, beside our own kernels.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))

    config.recompile_limit = SHAPES
    config.optimize_ddp = False  # it divides graphs for the exchange of gradients; blocks are small enough
    return torch.compile(forward, dynamic=False)


def compile_alone(net: nn.Module, **how: Any) -> None:
    """Compile `net` in place, whatever was compiled before; `how` goes to `torch.compile`.

    PyTorch counts compilations, and remembers which sizes varied, by the code of a function, and stops after eight.
    Networks share the code of `forward`; so this one gets code of its own, with a name of its own.
    """
    forward = net.forward

    def run(*inputs: Any) -> Any:
        return forward(*inputs)

    name = f"run_{next(_numbers)}"
    own = FunctionType(run.__code__.replace(co_name=name), run.__globals__, name, None, run.__closure__)
    net.forward = torch.compile(own, **how)
