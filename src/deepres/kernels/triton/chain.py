"""The layers of a backbone as the kernels see them: stages of convolutions in a chain, and their maps.

z is the output of a convolution, before its BN. The input x = relu(BN(z) + carried) of a block is written, since the
shortcut carries it on; no other normalised map is. All z of a stage lie in one tensor, so that one launch can compute
the gradients of all its kernels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from deepres.kernels.triton.tiles import MOST_PROGRAMS


@dataclass(frozen=True)
class Stage:
    """The convolutions of one stage in turn, each with its BN; conv1 is the first one of the first stage."""

    convs: Sequence[nn.Conv2d]
    norms: Sequence[nn.BatchNorm2d]

    @property
    def channels(self) -> int:
        """Of every map of the stage."""
        return self.convs[0].out_channels


class Layer(NamedTuple):
    """A convolution but conv1: its stage and row there, and those of the layer whose output is its input."""

    stage: int
    row: int
    source_stage: int
    source_row: int
    opens: bool  # whether it is the first one of a block

    @property
    def block(self) -> int:
        """Which of the inputs of blocks of its source stage is its input, if it opens a block."""
        return self.source_row // 2


@dataclass(frozen=True)
class Backbone:
    """The stages; `carries`: the blocks have shortcuts (identity, or option A), else the network is plain."""

    stages: Sequence[Stage]
    carries: bool

    def layers(self) -> Iterator[Layer]:
        """All convolutions but conv1, in turn."""
        for number, stage in enumerate(self.stages):
            for row in range(len(stage.convs)):
                if row:
                    yield Layer(number, row, number, row - 1, row % 2 == (number == 0))
                elif number:
                    yield Layer(number, row, number - 1, len(self.stages[number - 1].convs) - 1, True)

    def parameters(self) -> Iterator[Tensor]:
        """Of every layer: kernel, gamma, beta."""
        for stage in self.stages:
            for conv, norm in zip(stage.convs, stage.norms, strict=True):
                yield from (conv.weight, norm.weight, norm.bias)


class Maps(NamedTuple):
    """The maps of a stage, channels last: z (layers, M, C), and x, the inputs of blocks, (blocks, M, C).

    `statistics` (layers, 4, C) holds of each z: mean, 1 / deviation, and the scale and shift that normalise it.
    """

    height: int
    width: int
    z: Tensor
    x: Tensor
    statistics: Tensor

    @property
    def positions(self) -> int:
        """M, of all images."""
        return self.z.shape[1]

    @classmethod
    def room(cls, backbone: Backbone, images: Tensor, dtype: torch.dtype) -> list[Self]:
        """Memory for all maps of a forward pass."""
        batch, _, height, width = images.shape
        found: list[Self] = []
        for number, stage in enumerate(backbone.stages):
            if number:
                height, width = (height + 1) // 2, (width + 1) // 2
            layers, positions = len(stage.convs), batch * height * width
            z = images.new_empty((layers, positions, stage.channels), dtype=dtype)
            x = images.new_empty(((layers + 1) // 2 * backbone.carries, positions, stage.channels), dtype=dtype)
            statistics = images.new_empty((layers, 4, stage.channels), dtype=torch.float32)
            found.append(cls(height, width, z, x, statistics))
        return found


class Slopes(NamedTuple):
    """Of a stage: dy behind each BN (layers, M, C), what makes it dz (layers, 3, C), dgamma and dbeta (layers, 2, C)."""

    dy: Tensor
    coefficients: Tensor
    norms: Tensor

    @classmethod
    def room(cls, maps: Maps) -> Self:
        """Memory for one stage."""
        layers, _, channels = maps.z.shape
        small = maps.statistics.new_empty
        return cls(maps.z.new_empty(maps.z.shape), small((layers, 3, channels)), small((layers, 2, channels)))


class Scratch(NamedTuple):
    """The sums of each program of a launch, and how many have come to their end: zero between two launches."""

    partial: Tensor
    counter: Tensor

    @classmethod
    def room(cls, images: Tensor) -> Self:
        """Memory for one network."""
        partial = images.new_empty(2 * MOST_PROGRAMS * 64, dtype=torch.float32)
        return cls(partial, images.new_zeros(1, dtype=torch.int32))


def carried(backbone: Backbone, maps: Sequence[Maps], stage: int, block: int) -> tuple[Tensor, dict[str, Any]]:
    """What the shortcut adds to the input number `block` of that stage: a map, and the constants of the kernels."""
    own = maps[stage]
    if not backbone.carries or (stage == 0 and block == 0):
        return own.z, {"SHORTCUT": 0, "CS": own.z.shape[2], "HS": own.height, "WS": own.width}
    if block:
        return own.x[block - 1], {"SHORTCUT": 1, "CS": own.z.shape[2], "HS": own.height, "WS": own.width}
    before = maps[stage - 1]
    return before.x[-1], {"SHORTCUT": 2, "CS": before.z.shape[2], "HS": before.height, "WS": before.width}
