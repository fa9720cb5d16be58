"""1x1 convolutions of stride 1 as products of matrices, with BN's passes before and behind in the same operation."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor, nn

from deepres.kernels.triton import batch_norm
from deepres.kernels.triton import pointwise_kernels as on_gpu
from deepres.kernels.triton.batch_norm import BITS, SIGN, Gradient, Normalised, Slope, Target

PROGRAMS = 264  # two on each of the 132 multiprocessors of an H100
MULTIPLE = 64  # of which channels are multiples
WHOLE = 128  # most channels that are read at once


class Tile(NamedTuple):
    """How a program computes a product: the tile of its result, the channels of a step, the stages of its loads."""

    rows: int
    columns: int
    inner: int
    whole: bool
    warps: int
    stages: int

    def constants(self) -> dict[str, int]:
        """The constants of the kernel."""
        sizes = {"ROWS": self.rows, "COLUMNS": self.columns, "INNER": self.inner, "WHOLE": self.whole}
        return {**sizes, "num_warps": self.warps, "num_stages": self.stages}


def tile_forward(inner: int, columns: int) -> Tile:
    """The tile of `convolve` for these channels."""
    if inner <= WHOLE:
        return Tile(64, 128 if columns % 128 == 0 else 64, inner, True, 4, 3)
    return Tile(128, 128, 64, False, 8, 4) if columns % 128 == 0 else Tile(128, 64, 64, False, 4, 4)


def tile_back(inner: int, columns: int, through: bool) -> Tile:
    """The tile of `differentiate` for these channels; `through`: the gradient of z is computed on the way."""
    if through:
        return Tile(64, 128 if columns % 128 == 0 else 64, 64, False, 4, 3)
    if inner <= WHOLE:
        return Tile(64, 128 if columns % 128 == 0 else 64, inner, True, 4, 3)
    return Tile(64, 128 if columns % 128 == 0 else 64, 64, False, 4, 3)


def fits(x: Tensor, kernel: Tensor, stride: tuple[int, int]) -> bool:
    """Whether the kernels can run a convolution: 1x1 of stride 1 in bf16 (Triton's interpreter: in float32)."""
    product = kernel.shape[2:] == (1, 1) and stride == (1, 1) and all(size % MULTIPLE == 0 for size in kernel.shape[:2])
    return product and x.dtype == (torch.bfloat16 if x.is_cuda else torch.float32)


def convolve(x: Tensor, kernel: Tensor, bn: nn.BatchNorm2d) -> Normalised:
    """x * kernel with its batch statistics; the running ones are updated as by `batch_norm.statistics`."""
    columns, inner = kernel.shape[:2]
    z = _empty(x, columns)
    tile = tile_forward(inner, columns)
    sums, grid = _room(z, 2, tile)
    on_gpu.multiply[grid](x, kernel, z, sums, z.numel() // columns, inner, columns, **tile.constants())
    return batch_norm.finish_statistics(z, sums, bn)


def differentiate(
    dz: Tensor, kernel: Tensor, target: Target, other: Tensor | None, through: tuple[Normalised, Slope] | None = None
) -> tuple[Tensor, Gradient]:
    """The gradient of z, and that behind the BN of `target`, whose result [with gradient `other`, too] is the input.

    `dz` is the first already; with `through`, z and its slope, it is the gradient behind z's BN.
    """
    inner, columns = kernel.shape[:2]
    tile = tile_back(inner, columns, through is not None)
    # Where the gradient of z is computed on the way, it is written.
    dy, own = dz, (None, None, None)
    dz = dy if through is None else torch.empty_like(dy)
    if through is not None:
        own = (*through[0], through[1].map)
    # The product.
    of, bits, projected = target
    gradient = torch.empty_like(of.z)
    sums, grid = _room(gradient, 2 if projected is None else 3, tile)
    places = (other, bits, *of, *(projected or (None, None)), gradient, sums)
    sizes = (gradient.numel() // columns, inner, columns)
    how = SIGN if bits is None else BITS
    on_gpu.multiply_back[grid](
        dy, *own, None if through is None else dz, kernel, *places, *sizes, how, **tile.constants()
    )
    return dz, Gradient(gradient, sums, True)


def _empty(x: Tensor, columns: int) -> Tensor:
    count, _, height, width = x.shape
    size = (count, columns, height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _room(result: Tensor, kinds: int, tile: Tile) -> tuple[Tensor, tuple[int, int]]:
    """Room for sums over parts of the rows, and the grid: tiles of columns, and the parts."""
    columns = result.shape[1]
    across = columns // tile.columns
    parts = min(triton.cdiv(result.numel() // columns, tile.rows), max(1, PROGRAMS // across))
    return torch.empty(parts, kinds, columns, device=result.device), (across, parts)
