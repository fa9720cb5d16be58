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
PASSES = 2  # most tiles of columns, each of which computes the gradient of a product from that behind its BN
BLOCK = 1024  # of a kernel's gradient


class Tile(NamedTuple):
    """How a program computes a product: the tile of its result, the channels of a step, the stages of its loads.

    `registers` is the most of a thread, so that more programs run at once; None leaves it to the compiler.
    """

    rows: int
    columns: int
    inner: int
    whole: bool
    warps: int
    stages: int
    registers: int | None = None

    def constants(self) -> dict[str, int]:
        """The constants of the kernel."""
        sizes = {"ROWS": self.rows, "COLUMNS": self.columns, "INNER": self.inner}
        most = {} if self.registers is None else {"maxnreg": self.registers}
        return {**sizes, "num_warps": self.warps, "num_stages": self.stages, **most}


def tile_forward(inner: int, columns: int) -> Tile:
    """The tile of `convolve` for these channels."""
    if inner <= WHOLE:
        return Tile(64, 128 if columns % 128 == 0 else 64, inner, True, 4, 3)
    return Tile(128, 128, 64, False, 8, 4) if columns % 128 == 0 else Tile(128, 64, 64, False, 4, 4)


def tile_sum(columns: int) -> Tile:
    """The tile of `convolve_sum` for these channels of the result."""
    return Tile(64, 128 if columns % 128 == 0 else 64, 64, False, 4, 3)


def tile_back(inner: int, columns: int) -> Tile:
    """The tile of `differentiate` for these channels."""
    across = 128 if columns % 128 == 0 else 64
    return Tile(64, across, inner, True, 4, 3) if inner <= WHOLE else Tile(64, across, 64, False, 4, 3)


def tile_kernel(inner: int, columns: int) -> Tile:
    """The tile of `differentiate_kernel`: of `inner` x `columns` channels, in steps of rows."""
    if columns % 128:
        return Tile(64, 64, 256 if inner % 256 == 0 else 64, False, 8, 3)
    return (
        Tile(64, 256 if columns % 256 == 0 else 128, 64, False, 8, 3)
        if inner % 128
        else Tile(64, 128, 128, False, 8, 3)
    )


def fits(x: Tensor, kernel: Tensor, stride: tuple[int, int]) -> bool:
    """Whether the kernels can run a convolution: 1x1 of stride 1 in bf16 (Triton's interpreter: in float32)."""
    product = kernel.shape[2:] == (1, 1) and stride == (1, 1) and all(size % MULTIPLE == 0 for size in kernel.shape[:2])
    return product and x.dtype == (torch.bfloat16 if x.is_cuda else torch.float32)


def convolve(x: Tensor | Normalised, kernel: Tensor, bn: nn.BatchNorm2d) -> Normalised:
    """x * kernel with its batch statistics; the running ones are updated as by `batch_norm.statistics`.

    Where x is the output of a convolution with statistics, its input is ReLU(BN(x)), computed on the way.
    """
    x, given = x if isinstance(x, Normalised) else (x, None)
    return _convolve(x, (given, None, None, None, None), kernel, bn, tile_forward(kernel.shape[1], kernel.shape[0]))


def fits_sum(kernel: Tensor) -> bool:
    """Whether `convolve_sum` pays: few tiles of columns compute the same sum."""
    return kernel.shape[0] // tile_sum(kernel.shape[0]).columns <= PASSES


def convolve_sum(
    of: Normalised, added: Tensor | Normalised, kernel: Tensor, bn: nn.BatchNorm2d
) -> tuple[Tensor, Tensor, Normalised]:
    """x and its bits, as by `batch_norm.normalise_add` from the first two; and x * kernel as by `convolve`."""
    y = torch.empty_like(of.z)
    bits = torch.empty(y.numel() // 8, dtype=torch.uint8, device=y.device)
    added, added_given = added if isinstance(added, Normalised) else (added, None)
    before = (of.found, added, added_given, y, bits)
    return y, bits, _convolve(of.z, before, kernel, bn, tile_sum(kernel.shape[0]))


def _convolve(
    x: Tensor, before: tuple[Tensor | None, ...], kernel: Tensor, bn: nn.BatchNorm2d, tile: Tile
) -> Normalised:
    columns, inner = kernel.shape[:2]
    z = _empty(x, columns)
    sums, grid = _room(z, 2, tile)
    sizes = z.numel() // columns, inner, columns
    on_gpu.multiply[grid](x, *before, kernel, z, sums, *sizes, WHOLE=tile.whole, **tile.constants())
    return batch_norm.finish_statistics(z, sums, bn)


def differentiate(
    gradient: Gradient, of: Normalised, slope: Slope, kernel: Tensor, target: Target, other: Tensor | None
) -> tuple[Tensor, Gradient]:
    """From the gradient behind BN: that of the product `of`, and that behind the BN of `target`, which is its input.

    `other`, if given, is added to the gradient of the input: that of a shortcut.
    """
    inner, columns = kernel.shape[:2]
    masked, own = gradient.masked, (*of, slope.map)
    # With many tiles of columns, each of which would compute it, the gradient of the product is a pass of its own.
    dz = torch.empty_like(gradient.dy)
    tile = tile_back(inner, columns)
    if columns // tile.columns > PASSES:
        dz, own = batch_norm.differentiate(of, slope, gradient.dy, not masked), (None, None, None)
        gradient = gradient._replace(dy=dz)
    # The product.
    result = torch.empty_like(target.of.z)
    sums, grid = _room(result, 2 if target.projected is None else 3, tile)
    before = (other, target.bits, *target.of, *(target.projected or (None, None)))
    how = SIGN if target.bits is None else BITS
    sizes = (result.numel() // columns, inner, columns)
    on_gpu.multiply_back[grid](
        gradient.dy, *own, dz, kernel, *before, result, sums, *sizes, masked, how, WHOLE=tile.whole, **tile.constants()
    )
    return dz, Gradient(result, sums, True)


def differentiate_kernel(dz: Tensor, x: Tensor | Normalised, like: Tensor) -> Tensor:
    """The gradient of the kernel, in float32, from those of the product and the input; x as in `convolve`."""
    inner, columns = like.shape[:2]
    x, given = x if isinstance(x, Normalised) else (x, None)
    tile = tile_kernel(inner, columns)
    tiles, rows = inner // tile.inner * (columns // tile.columns), dz.numel() // inner
    parts = min(triton.cdiv(rows, tile.rows), max(1, PROGRAMS // tiles))
    sums = torch.empty(parts, inner, columns, device=dz.device)
    on_gpu.multiply_rows[tiles, parts](dz, x, given, sums, rows, inner, columns, **tile.constants())
    # The sum over the parts, with the strides of the kernel.
    result = torch.empty_like(like, dtype=torch.float32)
    size = inner * columns
    on_gpu.add_parts[(triton.cdiv(size, BLOCK),)](sums, result, parts, size, BLOCK=BLOCK)
    return result


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
