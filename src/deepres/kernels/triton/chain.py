"""The layers of a backbone as the kernels see them: stages of convolutions in a chain, and their maps.

z is the output of a convolution, before its BN; x = relu(BN(z) + carried) is what the next one takes. The maps of a
stage lie in one tensor, so that one launch can compute the gradients of all its kernels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from deepres.kernels.triton.tiles import COPIES


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
    """The maps z and x of a stage, channels last, (layers, M, C) each: of the positions of all images.

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

    @property
    def channels(self) -> int:
        """C."""
        return self.z.shape[2]

    @classmethod
    def room(cls, backbone: Backbone, images: Tensor, dtype: torch.dtype) -> list[Self]:
        """Memory for all maps of a forward pass."""
        batch, _, height, width = images.shape
        found: list[Self] = []
        for number, stage in enumerate(backbone.stages):
            if number:
                height, width = (height + 1) // 2, (width + 1) // 2
            shape = (len(stage.convs), batch * height * width, stage.channels)
            z, x = images.new_empty(shape, dtype=dtype), images.new_empty(shape, dtype=dtype)
            statistics = images.new_empty((len(stage.convs), 4, stage.channels), dtype=torch.float32)
            found.append(cls(height, width, z, x, statistics))
        return found


class Slopes(NamedTuple):
    """Gradients of a stage: dy and dz, behind and before each BN, (layers, M, C); dgamma and dbeta, (layers, 2, C)."""

    dy: Tensor
    dz: Tensor
    norms: Tensor

    @classmethod
    def room(cls, maps: Maps) -> Self:
        """Memory for one stage."""
        norms = maps.statistics.new_empty((len(maps.z), 2, maps.channels))
        return cls(maps.z.new_empty(maps.z.shape), maps.z.new_empty(maps.z.shape), norms)


class Sums(NamedTuple):
    """BN's sums in the forward and in the backward pass of a stage, (layers, (2 copies + 1) C): zero before a pass."""

    forward: Tensor
    backward: Tensor

    @classmethod
    def room(cls, maps: Sequence[Maps]) -> list[Self]:
        """Memory for all stages, zeroed in one launch."""
        sizes = [len(stage.z) * (2 * COPIES[stage.channels] + 1) * stage.channels for stage in maps]
        flat = maps[0].z.new_zeros(2 * sum(sizes), dtype=torch.int64)
        shaped = [
            part.view(2, len(stage.z), -1) for part, stage in zip(flat.split([2 * s for s in sizes]), maps, strict=True)
        ]
        return [cls(*part) for part in shaped]


def packed(backbone: Backbone, images: Tensor, dtype: torch.dtype) -> list[list[Tensor]]:
    """All kernels in the maps' type and channels last, (out, in, 3, 3) each, copied in one launch."""
    weights = [[conv.weight.detach() for conv in stage.convs] for stage in backbone.stages]
    flat = images.new_empty(sum(weight.numel() for stage in weights for weight in stage), dtype=dtype)
    start, copies = 0, list[list[Tensor]]()
    for stage in weights:
        copies.append([])
        for weight in stage:
            width = weight.shape[1]
            copies[-1].append(flat.as_strided(weight.shape, (9 * width, 1, 3 * width, width), start))
            start += weight.numel()
    targets, sources = list(chain.from_iterable(copies)), list(chain.from_iterable(weights))
    torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return copies


def carried(backbone: Backbone, maps: Sequence[Maps], stage: int, row: int) -> tuple[Tensor, dict[str, Any]]:
    """What a shortcut adds behind the BN of that layer, the last one of a block: a map, and the kernels' constants."""
    own = maps[stage]
    if not backbone.carries or (stage, row) == (0, 0):
        return nothing(own)
    if row > 1:
        return own.x[row - 2], {"SHORTCUT": 1, "CS": own.channels, "HS": own.height, "WS": own.width}
    before = maps[stage - 1]
    return before.x[-1], {"SHORTCUT": 2, "CS": before.channels, "HS": before.height, "WS": before.width}


def nothing(own: Maps) -> tuple[Tensor, dict[str, Any]]:
    """As `carried`, where no shortcut ends."""
    return own.z, {"SHORTCUT": 0, "CS": own.channels, "HS": own.height, "WS": own.width}
