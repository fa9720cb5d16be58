"""Batch normalization's sums across the programs of a launch, as whole numbers, so that their order does not matter.

Every program adds its own sums by atomic additions in fixed point. Of a layer there are `copies` of both sums, to
which the programs add in turn; behind them is a row that tells where a sum left the range of fixed point (or was not
finite), which makes the result not a number. The next kernel's programs take the statistics from the sums; its first
one writes down what others need.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false
import triton
import triton.language as tl

MEAN, RSTD, SCALE, SHIFT = (tl.constexpr(row) for row in range(4))  # the rows of `statistics` (4, C)
LANES = 128  # copies * C
# In float64; the largest values are 2**62 units.
UNITS_OF_MEAN = tl.constexpr(2.0**40)
UNITS_OF_SQUARE = tl.constexpr(2.0**36)
UNITS_OF_GRADIENT = tl.constexpr(2.0**40)
MOST = tl.constexpr(2.0**62)


@triton.jit
def add_sums(sums, first, second, share, C: tl.constexpr, COPIES: tl.constexpr):
    """Add `first` and `second` (C,), in units, to the layer's sums; `share` of all positions may use its range."""
    c = tl.arange(0, C)
    at = sums + (tl.program_id(0) % COPIES) * (2 * C) + c
    fine = (tl.abs(first) < share * MOST) & (tl.abs(second) < share * MOST)
    tl.atomic_add(at, tl.floor(tl.where(fine, first, 0.0) + 0.5).to(tl.int64), sem="relaxed")
    tl.atomic_add(at + C, tl.floor(tl.where(fine, second, 0.0) + 0.5).to(tl.int64), sem="relaxed")
    tl.store(sums + COPIES * (2 * C) + c, tl.full([C], 1, tl.int64), mask=~fine)


@triton.jit
def total(sums, C: tl.constexpr, COPIES: tl.constexpr):
    """Both sums of a layer (C,), float64 in units; not a number where one left the range."""
    c = tl.arange(0, C)
    at = sums + tl.arange(0, COPIES)[:, None] * (2 * C) + c[None, :]
    first, second = tl.sum(tl.load(at), 0).to(tl.float64), tl.sum(tl.load(at + C), 0).to(tl.float64)
    fine = tl.load(sums + COPIES * (2 * C) + c) == 0
    return tl.where(fine, first, float("nan")), tl.where(fine, second, float("nan"))


@triton.jit
def add_outputs(sums, z, first, positions, C: tl.constexpr, COPIES: tl.constexpr, BM: tl.constexpr):
    """Add a tile (BM, C) of a convolution's output, from position `first` on, to the sums of z and of z * z."""
    # About the tile's own mean: that of all may be far from zero.
    size = tl.minimum(positions - first, BM)
    inside = (tl.arange(0, BM) < size)[:, None]
    mean = tl.sum(tl.where(inside, z, 0.0), 0) / size
    off = tl.where(inside, z - mean[None, :], 0.0)
    squares = tl.sum(off * off, 0).to(tl.float64)
    part, mean = 1.0 / positions.to(tl.float64), mean.to(tl.float64)
    share = size.to(tl.float64) * part
    square = (squares * part + share * mean * mean) * UNITS_OF_SQUARE
    add_sums(sums, share * mean * UNITS_OF_MEAN, square, share, C, COPIES)


@triton.jit
def batch_statistics(sums, gamma, beta, eps, C: tl.constexpr, COPIES: tl.constexpr):
    """Mean, variance (float64), 1 / deviation, and the scale and shift that normalise z, (C,) each."""
    mean, square = total(sums, C, COPIES)
    mean, square = mean / UNITS_OF_MEAN, square / UNITS_OF_SQUARE
    difference = square - mean * mean
    variance = tl.where(difference < 0.0, 0.0, difference)  # keeps what is not a number
    mean = mean.to(tl.float32)
    rstd = 1.0 / tl.sqrt((variance + eps).to(tl.float32))
    c = tl.arange(0, C)
    scale = tl.load(gamma + c) * rstd
    return mean, variance, rstd, scale, tl.load(beta + c) - mean * scale


@triton.jit
def publish(
    statistics, running_mean, running_var, tracked, mean, variance, rstd, scale, shift, positions, momentum,
    C: tl.constexpr,
):  # fmt: skip
    """Write the statistics for later kernels, and the running ones as `nn.BatchNorm2d` does."""
    c = tl.arange(0, C)
    tl.store(statistics + MEAN * C + c, mean)
    tl.store(statistics + RSTD * C + c, rstd)
    tl.store(statistics + SCALE * C + c, scale)
    tl.store(statistics + SHIFT * C + c, shift)
    count = positions.to(tl.float64)
    unbiased = (variance * (count / (count - 1.0))).to(tl.float32)
    tl.store(running_mean + c, tl.load(running_mean + c) * (1.0 - momentum) + mean * momentum)
    tl.store(running_var + c, tl.load(running_var + c) * (1.0 - momentum) + unbiased * momentum)
    tl.store(tracked, tl.load(tracked) + 1)


@triton.jit
def add_gradients(sums, dy, z, first, positions, statistics, C: tl.constexpr, COPIES: tl.constexpr, BM: tl.constexpr):
    """Add a tile (BM, C) of the gradient behind BN, zero behind the end, to the sums of dy and of dy * xhat."""
    c = tl.arange(0, C)
    mean, rstd = tl.load(statistics + MEAN * C + c), tl.load(statistics + RSTD * C + c)
    sum_dy = tl.sum(dy, 0).to(tl.float64)
    sum_dy_xhat = (tl.sum(dy * (z - mean[None, :]), 0) * rstd).to(tl.float64)
    share = tl.minimum(positions - first, BM).to(tl.float64) / positions
    add_sums(sums, sum_dy * UNITS_OF_GRADIENT, sum_dy_xhat * UNITS_OF_GRADIENT, share, C, COPIES)


@triton.jit
def slopes(sums, statistics, gamma, grad_gamma, grad_beta, publishes, positions, C: tl.constexpr, COPIES: tl.constexpr):
    """a, b, c of dz = a dy + b z + c, BN's backward pass; where it `publishes`, the gradients of gamma and beta."""
    # dz = gamma rstd (dy - mean(dy) - xhat mean(dy xhat)), written as a function of dy and z.
    k = tl.arange(0, C)
    first, second = total(sums, C, COPIES)
    first, second = first / UNITS_OF_GRADIENT, second / UNITS_OF_GRADIENT
    if publishes:
        tl.store(grad_beta + k, first.to(tl.float32))
        tl.store(grad_gamma + k, second.to(tl.float32))
    mean, rstd = tl.load(statistics + MEAN * C + k), tl.load(statistics + RSTD * C + k)
    a = tl.load(gamma + k) * rstd
    part = 1.0 / positions.to(tl.float64)
    b = -a * rstd * (second * part).to(tl.float32)
    return a, b, -a * (first * part).to(tl.float32) - b * mean
