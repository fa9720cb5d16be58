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
UNITS_OF_MEAN = tl.constexpr(2.0**40)
UNITS_OF_SQUARE = tl.constexpr(2.0**36)
UNITS_OF_GRADIENT = tl.constexpr(2.0**40)
MOST = tl.constexpr(2.0**60)  # the shares of all programs may be 4 in all, of a map of one position


@triton.jit
def add_sums(sums, first, second, share, C: tl.constexpr, COPIES: tl.constexpr):
    """Add `first` and `second` (C,), in units, to the layer's sums; `share` of all positions may use its range."""
    c = tl.arange(0, C)
    at = sums + (tl.program_id(0) % COPIES) * (2 * C) + c
    fine = (tl.abs(first) < share * MOST) & (tl.abs(second) < share * MOST)
    tl.atomic_add(at, tl.where(fine, first, 0.0).to(tl.int64), sem="relaxed")
    tl.atomic_add(at + C, tl.where(fine, second, 0.0).to(tl.int64), sem="relaxed")
    tl.store(sums + COPIES * (2 * C) + c, tl.full([C], 1, tl.int64), mask=~fine)


@triton.jit
def total(sums, C: tl.constexpr, COPIES: tl.constexpr):
    """Both sums of a layer (C,), int64 in units, and whether they stayed in range."""
    c = tl.arange(0, C)
    at = sums + tl.arange(0, COPIES)[:, None] * (2 * C) + c[None, :]
    fine = tl.load(sums + COPIES * (2 * C) + c) == 0
    return tl.sum(tl.load(at), 0), tl.sum(tl.load(at + C), 0), fine


@triton.jit
def add_outputs(sums, z, first, positions, C: tl.constexpr, COPIES: tl.constexpr, BM: tl.constexpr):
    """Add a tile (BM, C) of a convolution's output, from position `first` on, to the sums of z and of z * z."""
    # About the tile's own mean: that of all may be far from zero.
    size = tl.minimum(positions - first, BM).to(tl.float32)
    inside = (first + tl.arange(0, BM) < positions)[:, None]
    mean = tl.sum(tl.where(inside, z, 0.0), 0) / size
    off = tl.where(inside, z - mean[None, :], 0.0)
    squares = tl.sum(off * off, 0) / size + mean * mean
    share = size / positions
    add_sums(sums, mean * (share * UNITS_OF_MEAN), squares * (share * UNITS_OF_SQUARE), share, C, COPIES)


@triton.jit
def batch_statistics(sums, gamma, beta, eps, C: tl.constexpr, COPIES: tl.constexpr):
    """Mean, variance, 1 / deviation, and the scale and shift that normalise z, (C,) each."""
    c = tl.arange(0, C)
    gain, offset = tl.load(gamma + c), tl.load(beta + c)
    first, second, fine = total(sums, C, COPIES)
    # The difference of two large numbers is taken in float64.
    exact = first.to(tl.float64) / UNITS_OF_MEAN
    variance = tl.maximum((second.to(tl.float64) / UNITS_OF_SQUARE - exact * exact).to(tl.float32), 0.0)
    mean, variance = tl.where(fine, exact.to(tl.float32), float("nan")), tl.where(fine, variance, float("nan"))
    rstd = tl.rsqrt(variance + eps)
    scale = gain * rstd
    return mean, variance, rstd, scale, offset - mean * scale


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
    unbiased = variance * (positions / (positions - 1.0))
    tl.store(running_mean + c, tl.load(running_mean + c) * (1.0 - momentum) + mean * momentum)
    tl.store(running_var + c, tl.load(running_var + c) * (1.0 - momentum) + unbiased * momentum)
    tl.store(tracked, tl.load(tracked) + 1)


@triton.jit
def add_gradients(sums, dy, z, share, statistics, C: tl.constexpr, COPIES: tl.constexpr):
    """Add a tile (BM, C) of the gradient behind BN, zero outside the map, to the sums of dy and of dy * xhat."""
    c = tl.arange(0, C)
    mean, rstd = tl.load(statistics + MEAN * C + c), tl.load(statistics + RSTD * C + c)
    sum_dy, sum_dy_xhat = tl.sum(dy, 0), tl.sum(dy * (z - mean[None, :]), 0) * rstd
    add_sums(sums, sum_dy * UNITS_OF_GRADIENT, sum_dy_xhat * UNITS_OF_GRADIENT, share, C, COPIES)


@triton.jit
def slopes(sums, statistics, gamma, grad_gamma, grad_beta, publishes, positions, C: tl.constexpr, COPIES: tl.constexpr):
    """a, b, c of dz = a dy + b z + c, BN's backward pass; where it `publishes`, the gradients of gamma and beta."""
    # dz = gamma rstd (dy - mean(dy) - xhat mean(dy xhat)), written as a function of dy and z.
    k = tl.arange(0, C)
    mean, rstd = tl.load(statistics + MEAN * C + k), tl.load(statistics + RSTD * C + k)
    a = tl.load(gamma + k) * rstd
    first, second, fine = total(sums, C, COPIES)
    sum_dy = tl.where(fine, first.to(tl.float32) / UNITS_OF_GRADIENT, float("nan"))
    sum_dy_xhat = tl.where(fine, second.to(tl.float32) / UNITS_OF_GRADIENT, float("nan"))
    if publishes:
        tl.store(grad_beta + k, sum_dy)
        tl.store(grad_gamma + k, sum_dy_xhat)
    b = -a * rstd * (sum_dy_xhat / positions)
    return a, b, -a * (sum_dy / positions) - b * mean
