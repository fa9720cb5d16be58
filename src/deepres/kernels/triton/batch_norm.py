"""Batch normalization in training, with the addition of a shortcut and the ReLU, on a GPU: two passes each way.

Maps are channels-last: a matrix of rows (positions of all images) and columns (channels). Sums are taken in float32
over parts of the rows, and those of all parts in float64, in a fixed order: the same bits in every run.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor, nn

from deepres.kernels.triton import batch_norm_kernels as on_gpu

PROGRAMS = 256  # of a pass that takes sums: two on each of the 132 multiprocessors of an H100
ROWS, COLUMNS = 64, 64  # of a tile
NOTHING, SIGN, BITS = 0, 1, 2  # what tells where the ReLU has passed a value: its sign before, or kept bits


class Normalised(NamedTuple):
    """The output z (N, C, H, W) of a convolution, and `found` (4, C): mean, 1 / deviation, and BN's scale and shift."""

    z: Tensor
    found: Tensor


def statistics(z: Tensor, bn: nn.BatchNorm2d) -> Normalised:
    """Batch statistics of z; the running ones of `bn` are updated, but not its count of batches."""
    rows, columns = _rows(z)
    sums, parts = room_for_sums(z, 2)
    on_gpu.sum_rows[_grid_of_sums(columns, parts)](z, sums, rows, columns, **_tile(columns, 2 * ROWS))
    return finish_statistics(z, sums, bn)


def finish_statistics(z: Tensor, sums: Tensor, bn: nn.BatchNorm2d) -> Normalised:
    """As `statistics`, from the sums of z and of its squares over parts of the rows: (parts, 2, C)."""
    rows, columns = _rows(z)
    if rows == 1:
        raise ValueError(f"batch statistics need more than one value a channel, and here are maps {tuple(z.shape)}")
    found = torch.empty(4, columns, device=z.device)
    running = bn.running_mean, bn.running_var
    on_gpu.finish_statistics[_grid_of_finish(columns)](
        sums, bn.weight, bn.bias, *running, found, len(sums), rows, columns, bn.eps, bn.momentum, **FINISH
    )
    return Normalised(z, found)


def normalise(of: Normalised) -> Tensor:
    """ReLU(BN(z)), of the type of z."""
    return _normalise(of, None, None, None, 1)


def normalise_add(of: Normalised, added: Tensor | Normalised, every: int = 1) -> tuple[Tensor, Tensor]:
    """ReLU(BN(z) + added) at every `every`-th position, and a bit for each value: whether the ReLU has passed it.

    Where the shortcut is a projection, `added` is the output of its convolution, and is normalised in the same pass.
    """
    count, columns, height, width = of.z.shape
    size = count * triton.cdiv(height, every) * triton.cdiv(width, every) * columns
    bits = torch.empty(size // 8, dtype=torch.uint8, device=of.z.device)
    carried, found = (added.z, added.found) if isinstance(added, Normalised) else (added, None)
    return _normalise(of, carried, found, bits, every), bits


def _normalise(of: Normalised, added: Tensor | None, found: Tensor | None, bits: Tensor | None, every: int) -> Tensor:
    columns, height, width = of.z.shape[1:]
    y = maps_like(of.z, columns, triton.cdiv(height, every), triton.cdiv(width, every))
    how = 0 if added is None else 1 if found is None else 2
    places = (*of, added, found, y, bits)
    sizes = (y.numel() // columns, columns, height, width)
    on_gpu.normalise[_grid_of_tiles(sizes[0], columns)](*places, *sizes, how, every, **_tile(columns))
    return y


def maps_like(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Room for as many maps as x has, channels-last."""
    size = (len(x), channels, height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


class Target(NamedTuple):
    """ReLU(BN(z) [+ shortcut]): `bits` as `normalise_add` gives them, and the projection if the shortcut is one."""

    of: Normalised
    bits: Tensor | None = None
    projected: Normalised | None = None


class Gradient(NamedTuple):
    """The gradient of the argument of the ReLU of a `Target`, or (not `masked`) of its result; and sums of the former.

    The sums (parts, 2 or 3, C) over parts of the rows are those of the gradient, and of its product with z - mean; the
    third is the product with the projection's.
    """

    dy: Tensor
    sums: Tensor
    masked: bool


class Slope(NamedTuple):
    """The gradient of z as a linear map of that behind BN, `map` (3, C), and those of BN's `weight` and `bias`."""

    map: Tensor
    weight: Tensor
    bias: Tensor


def sum_gradients(target: Target, dy: Tensor, other: Tensor | None = None, every: int = 1) -> Gradient:
    """The gradient behind the BN of `target` from dy [+ other], the gradients of its result (at `every`-th positions).

    It is written where that is not dy itself, with the sign of BN's result as the mask. The bits of `target` are those
    of the same positions.
    """
    of, bits, projected = target
    rows, columns = _rows(of.z)
    written = bits is not None or other is not None or every > 1
    gradient = torch.empty_like(of.z) if written else None
    sums, parts = room_for_sums(of.z, 2 if projected is None else 3)
    places = (dy, other, bits, *of, *(projected or (None, None)), gradient, sums)
    how = SIGN if bits is None else BITS
    sizes = rows, columns, *of.z.shape[2:]
    taken = ROWS if projected is None else ROWS // 2  # or too few programs run at once: three sums take registers
    on_gpu.sum_gradients[_grid_of_sums(columns, parts)](*places, *sizes, how, every, **_tile(columns, taken))
    return Gradient(dy if gradient is None else gradient, sums, written)


def finish_slope(sums: Tensor, place: int, of: Normalised, weight: Tensor) -> Slope:
    """The slope of one BN from the sums of a `Gradient`; `place` is that of the product with its z."""
    rows, columns = _rows(of.z)
    result = Slope(*torch.empty(5, columns, device=of.z.device).split_with_sizes((3, 1, 1)))
    on_gpu.finish_slope[_grid_of_finish(columns)](
        sums, weight, of.found, *result, len(sums), sums.shape[1], place, rows, columns, **FINISH
    )
    return Slope(result.map, result.weight.view(-1), result.bias.view(-1))


def differentiate(of: Normalised, by: Slope, dy: Tensor, relu: bool) -> Tensor:
    """The gradient of z, from that of BN(z) or of ReLU(BN(z))."""
    rows, columns = _rows(of.z)
    dz = torch.empty_like(of.z)
    places = (dy, of.z, of.found, by.map, dz)
    on_gpu.differentiate[_grid_of_tiles(rows, columns)](
        *places, rows, columns, SIGN if relu else NOTHING, **_tile(columns)
    )
    return dz


FINISH = {"PARTS": 256, "COLUMNS": 16, "num_warps": 8}


def _rows(z: Tensor) -> tuple[int, int]:
    """The numbers of positions of all images, and of channels."""
    return z.numel() // z.shape[1], z.shape[1]


def _tile(columns: int, rows: int = ROWS) -> dict[str, int]:
    return {"ROWS": rows, "COLUMNS": min(COLUMNS, triton.next_power_of_2(columns)), "num_warps": 8}


def room_for_sums(z: Tensor, kinds: int, programs: int | None = None) -> tuple[Tensor, int]:
    """Room for the sums over parts of the rows of z, and the number of parts."""
    rows, columns = _rows(z)
    parts = min(triton.cdiv(rows, ROWS), max(1, (programs or PROGRAMS) // triton.cdiv(columns, COLUMNS)))
    return torch.empty(parts, kinds, columns, device=z.device), parts


def _grid_of_sums(columns: int, parts: int) -> tuple[int, int]:
    return triton.cdiv(columns, COLUMNS), parts


def _grid_of_tiles(rows: int, columns: int) -> tuple[int]:
    return (triton.cdiv(columns, COLUMNS) * triton.cdiv(rows, ROWS),)


def _grid_of_finish(columns: int) -> tuple[int]:
    return (triton.cdiv(columns, FINISH["COLUMNS"]),)
