"""1x1 convolutions of stride 1 as products of matrices, with BN's passes before and behind in the same operation."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor, nn

from deepres.kernels.triton import batch_norm
from deepres.kernels.triton import pointwise_kernels as on_gpu
from deepres.kernels.triton.batch_norm import BITS, SIGN, Gradient, Normalised, Slope, Target

PROGRAMS = 256  # about two on each of the 132 multiprocessors of an H100
MULTIPLE = 64  # of which channels are multiples
WHOLE = 128  # most channels that are read at once
# Most channels on the narrower side. With more, PyTorch's products are so much faster that passes of their own are, too
# (measured on an H100 for batches of 256 at 224 pixels).
FORWARD, BACK = 128, 256


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


def tile_through(columns: int) -> Tile:
    """The tile of a product whose factor is computed on the way, for these channels of the result."""
    return Tile(64, 128 if columns % 128 == 0 else 64, 64, False, 4, 3)


def tile_back(inner: int, columns: int) -> Tile:
    """The tile of `differentiate` for these channels."""
    across = 128 if columns % 128 == 0 else 64
    return Tile(64, across, inner, True, 4, 3) if inner <= WHOLE else Tile(64, across, 64, False, 4, 3)


def fits(x: Tensor, kernel: Tensor, stride: tuple[int, int], widest: int) -> bool:
    """Whether the kernels run a convolution: 1x1 of stride 1 in bf16 (Triton's interpreter: in float32).

    `widest` is `FORWARD` for `convolve` and `BACK` for `differentiate`.
    """
    product = kernel.shape[2:] == (1, 1) and stride == (1, 1) and all(size % MULTIPLE == 0 for size in kernel.shape[:2])
    known = x.dtype == (torch.bfloat16 if x.is_cuda else torch.float32)
    return product and known and min(kernel.shape[:2]) <= widest


def convolve(x: Tensor, kernel: Tensor, bn: nn.BatchNorm2d) -> Normalised:
    """x * kernel with its batch statistics; the running ones are updated as by `batch_norm.statistics`."""
    columns, inner = kernel.shape[:2]
    return _convolve(x, (None, None, None, None, None), kernel, bn, tile_forward(inner, columns))


def fits_sum(kernel: Tensor) -> bool:
    """Whether one tile has all columns of `convolve_sum`: else several programs compute the same sum."""
    return kernel.shape[0] == tile_through(kernel.shape[0]).columns


def convolve_sum(
    of: Normalised, added: Tensor | Normalised, kernel: Tensor, bn: nn.BatchNorm2d
) -> tuple[Tensor, Tensor, Normalised]:
    """x and its bits, as by `batch_norm.normalise_add` from the first two; and x * kernel as by `convolve`."""
    y = torch.empty_like(of.z)
    bits = torch.empty(y.numel() // 8, dtype=torch.uint8, device=y.device)
    added, added_given = added if isinstance(added, Normalised) else (added, None)
    before = (of.found, added, added_given, y, bits)
    return y, bits, _convolve(of.z, before, kernel, bn, tile_through(kernel.shape[0]))


def _convolve(
    x: Tensor, before: tuple[Tensor | None, ...], kernel: Tensor, bn: nn.BatchNorm2d, tile: Tile
) -> Normalised:
    columns, inner = kernel.shape[:2]
    z = batch_norm.maps_like(x, columns, *x.shape[2:])
    sums, grid = _room(z, 2, tile)
    sizes = z.numel() // columns, inner, columns
    on_gpu.multiply[grid](x, *before, kernel, z, sums, *sizes, **tile.constants())
    return batch_norm.finish_statistics(z, sums, bn)


def differentiate(
    gradient: Gradient, of: Normalised, slope: Slope, kernel: Tensor, target: Target, other: Tensor | None
) -> tuple[Tensor, Gradient]:
    """From the gradient behind BN: that of the product `of`, and that behind the BN of `target`, which is its input.

    `other`, if given, is added to the gradient of the input: that of a shortcut.
    """
    inner, columns = kernel.shape[:2]
    # The gradient of the product is computed on the way, or behind a ReLU without bits in a pass of its own.
    if gradient.masked:
        dz, own, tile = torch.empty_like(gradient.dy), (*of, slope.map), tile_through(columns)
        places = (gradient.dy, *own, dz)
    else:
        dz, tile = batch_norm.differentiate(of, slope, gradient.dy, True), tile_back(inner, columns)
        places = (dz, None, None, None, None)
    # The product.
    result = torch.empty_like(target.of.z)
    sums, grid = _room(result, 2 if target.projected is None else 3, tile)
    before = (other, target.bits, *target.of, *(target.projected or (None, None)))
    sizes = (result.numel() // columns, inner, columns, SIGN if target.bits is None else BITS)
    on_gpu.multiply_back[grid](*places, kernel, *before, result, sums, *sizes, **tile.constants())
    return dz, Gradient(result, sums, True)


def _room(result: Tensor, kinds: int, tile: Tile) -> tuple[Tensor, tuple[int, int]]:
    """Room for sums over parts of the rows, and the grid: tiles of columns, and the parts."""
    columns = result.shape[1]
    across = columns // tile.columns
    parts = min(triton.cdiv(result.numel() // columns, tile.rows), max(1, PROGRAMS // across))
    return torch.empty(parts, kinds, columns, device=result.device), (across, parts)
