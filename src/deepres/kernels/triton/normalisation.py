"""Batch normalization's sums inside the kernels of the convolutions: every program adds up its own, the last one all.

The order of the additions depends on the grid alone, so that a step gives the same bits each time.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false
import triton
import triton.language as tl

MEAN, RSTD, SCALE, SHIFT = (tl.constexpr(row) for row in range(4))  # the rows of `statistics` (4, C)


@triton.jit
def is_last(counter):
    """Whether this program is the last one to come here; the others' stores before it are visible then."""
    tl.debug_barrier()
    arrived = tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu")
    last = arrived == tl.num_programs(0) - 1
    if last:
        tl.store(counter, 0)  # ready for the next launch
    return last


@triton.jit
def add_tile(values, inside, mean, squares, seen):
    """Mean and sum of squared deviations (C,) of `seen` positions, together with those of a tile (BM, C)."""
    size = tl.sum(inside.to(tl.float32))
    own = tl.sum(tl.where(inside[:, None], values, 0.0), 0) / size
    off = tl.where(inside[:, None], values - own[None, :], 0.0)
    total = seen + size
    step = own - mean
    squares += tl.sum(off * off, 0) + step * step * (seen * size / total)
    return mean + step * (size / total), squares, total


@triton.jit
def finish_statistics(
    partial, statistics, gamma, beta, running_mean, running_var, tracked, positions, eps, momentum,
    C: tl.constexpr, BM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """All programs' means and squares to the layer's statistics, and the running ones as `nn.BatchNorm2d` does."""
    # Sums in float64: the mean may be far from zero.
    programs = tl.num_programs(0)
    tiles = tl.cdiv(positions, BM)
    c = tl.arange(0, C)
    total = tl.zeros([C], tl.float64)
    squares = tl.zeros([C], tl.float64)
    for first in range(0, programs, ROWS):
        row = first + tl.arange(0, ROWS)
        own = row[:, None] < programs
        at = partial + row[:, None] * (2 * C) + c[None, :]
        mean = tl.load(at, mask=own, other=0.0, cache_modifier=".cg").to(tl.float64)
        square = tl.load(at + C, mask=own, other=0.0, cache_modifier=".cg").to(tl.float64)
        size = (tiles - row + programs - 1) // programs * BM
        size = tl.where(row == (tiles - 1) % programs, size - (tiles * BM - positions), size).to(tl.float64)
        total += tl.sum(size[:, None] * mean, 0)
        squares += tl.sum(square + size[:, None] * mean * mean, 0)
    # Batch statistics.
    count = positions.to(tl.float64)
    average = total / count
    variance = tl.maximum(squares / count - average * average, 0.0)
    mean = average.to(tl.float32)
    rstd = 1.0 / tl.sqrt((variance + eps).to(tl.float32))
    scale = tl.load(gamma + c) * rstd
    tl.store(statistics + MEAN * C + c, mean)
    tl.store(statistics + RSTD * C + c, rstd)
    tl.store(statistics + SCALE * C + c, scale)
    tl.store(statistics + SHIFT * C + c, tl.load(beta + c) - mean * scale)
    # Running statistics; the variance there is the unbiased one.
    unbiased = (variance * (count / (count - 1.0))).to(tl.float32)
    tl.store(running_mean + c, tl.load(running_mean + c) * (1.0 - momentum) + mean * momentum)
    tl.store(running_var + c, tl.load(running_var + c) * (1.0 - momentum) + unbiased * momentum)
    tl.store(tracked, tl.load(tracked) + 1)


@triton.jit
def finish_gradients(
    partial, statistics, gamma, coefficients, grad_gamma, grad_beta, positions, C: tl.constexpr, ROWS: tl.constexpr
):
    """All programs' sums of dy and of dy * xhat to the gradients of gamma and beta, and to dz = a dy + b z + c."""
    programs = tl.num_programs(0)
    c = tl.arange(0, C)
    first_sum = tl.zeros([C], tl.float64)
    second_sum = tl.zeros([C], tl.float64)
    for first in range(0, programs, ROWS):
        row = first + tl.arange(0, ROWS)
        own = row[:, None] < programs
        at = partial + row[:, None] * (2 * C) + c[None, :]
        first_sum += tl.sum(tl.load(at, mask=own, other=0.0, cache_modifier=".cg").to(tl.float64), 0)
        second_sum += tl.sum(tl.load(at + C, mask=own, other=0.0, cache_modifier=".cg").to(tl.float64), 0)
    tl.store(grad_beta + c, first_sum.to(tl.float32))
    tl.store(grad_gamma + c, second_sum.to(tl.float32))
    # dz = gamma rstd (dy - mean(dy) - xhat mean(dy xhat)), written as a function of dy and z.
    count = positions.to(tl.float64)
    mean = tl.load(statistics + MEAN * C + c)
    rstd = tl.load(statistics + RSTD * C + c)
    a = tl.load(gamma + c) * rstd
    b = -a * rstd * (second_sum / count).to(tl.float32)
    tl.store(coefficients + c, a)
    tl.store(coefficients + C + c, b)
    tl.store(coefficients + 2 * C + c, -a * (first_sum / count).to(tl.float32) - b * mean)
