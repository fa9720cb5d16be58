"""Forward pass: one kernel a convolution. Its programs normalise the input, multiply, and add up BN's sums.

A program first writes the normalised input of its tile and of the rows around it; neighbours write those rows, too,
with the same values. Then the nine taps read it.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
import triton
import triton.language as tl

from deepres.kernels.triton.normalisation import add_outputs, batch_statistics, publish
from deepres.kernels.triton.overlap import wait_for_launch_before


@triton.jit
def activation(
    z, carried, m, inside, scale, shift,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
):  # fmt: skip
    """relu(scale z + shift + carried) at the positions m: (BM, C) in float32.

    SHORTCUT is the stride of the shortcut, 0 for none; it carries the map (N, HS, WS, CS), with zeros for new channels.
    """
    c = tl.arange(0, C)
    y = tl.load(z + (m * C)[:, None] + c[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
    y = y * scale[None, :] + shift[None, :]
    if SHORTCUT == 1:
        y += tl.load(carried + (m * C)[:, None] + c[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
    if SHORTCUT > 1:
        at = ((m // (H * W) * HS + m // W % H * SHORTCUT) * WS + m % W * SHORTCUT) * CS
        own = inside[:, None] & (c < CS)[None, :]
        y += tl.load(carried + at[:, None] + c[None, :], mask=own, other=0.0).to(tl.float32)
    return tl.maximum(y, 0.0)


@triton.jit
def convolve(
    z_in, sums_in, gamma_in, beta_in, statistics_in, running_mean, running_var, tracked, positions_in, eps, momentum,
    carried, x, weight, z, sums, positions,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, COPIES_IN: tl.constexpr, COPIES: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
    BM: tl.constexpr, BAND: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """x = relu(BN(z_in) + carried), (positions_in, CI); z = conv(x), (positions, CO); and the sums of its BN."""
    wait_for_launch_before(OVERLAP)
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    mean, variance, rstd, scale, shift = batch_statistics(sums_in, gamma_in, beta_in, eps, CI, COPIES_IN)
    # One program more than tiles: it writes down the statistics, while the others multiply.
    programs = tl.num_programs(0) - 1
    if tl.program_id(0) == programs:
        publish(
            statistics_in, running_mean, running_var, tracked, mean, variance, rstd, scale, shift, positions_in,
            momentum, CI,
        )  # fmt: skip
    else:
        for tile in range(tl.program_id(0), tl.cdiv(positions, BM), programs):
            # The rows that the tile's taps cover, normalised.
            first, last = tile * BM, tl.minimum(tile * BM + BM, positions) - 1
            top = first // (HO * WO) * H + tl.maximum(first // WO % HO * STRIDE - 1, 0)
            bottom = last // (HO * WO) * H + tl.minimum(last // WO % HO * STRIDE + 1, H - 1)
            for start in range(top * W, (bottom + 1) * W, BAND):
                m = start + tl.arange(0, BAND)
                inside = m < (bottom + 1) * W
                y = activation(z_in, carried, m, inside, scale, shift, CI, H, W, SHORTCUT, CS, HS, WS)
                tl.store(x + (m * CI)[:, None] + ci[None, :], y.to(x.dtype.element_ty), mask=inside[:, None])
            tl.debug_barrier()
            # The product of each tap.
            m = first + tl.arange(0, BM)
            n, h, w, own = m // (HO * WO), m // WO % HO, m % WO, m < positions
            product = tl.zeros([BM, CO], tl.float32)
            for tap in range(9):
                hi, wi = h * STRIDE + (tap // 3 - 1), w * STRIDE + (tap % 3 - 1)
                inside = own & (hi >= 0) & (hi < H) & (wi >= 0) & (wi < W)
                at = ((n * H + hi) * W + wi) * CI
                part = tl.load(x + at[:, None] + ci[None, :], mask=inside[:, None], other=0.0)
                kernel = tl.load(weight + ci[:, None] + co[None, :] * (9 * CI) + tap * CI)
                product = tl.dot(part, kernel, product, input_precision="tf32x3")
            # The raw output, and its sums as it is stored.
            rounded = product.to(z.dtype.element_ty)
            tl.store(z + m[:, None] * CO + co[None, :], rounded, mask=own[:, None])
            add_outputs(sums, rounded.to(tl.float32), first, positions, CO, COPIES, BM)


@triton.jit
def patches(
    images, m, positions, i_n, i_c, i_h, i_w, channels: tl.constexpr, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr
):
    """The 3x3 neighbourhoods of the positions m: (BM, K) in float32, tap by tap, zeros behind 9 * channels."""
    k = tl.arange(0, K)
    n, h, w = m // (H * W), m // W % H, m % W
    tap = k // channels
    hi, wi = h[:, None] + (tap // 3 - 1)[None, :], w[:, None] + (tap % 3 - 1)[None, :]
    inside = (m < positions)[:, None] & (tap < 9)[None, :] & (hi >= 0) & (hi < H) & (wi >= 0) & (wi < W)
    at = images + n[:, None] * i_n + hi * i_h + wi * i_w + (k % channels)[None, :] * i_c
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def convolve_images(
    images, weight, z, sums, positions, i_n, i_c, i_h, i_w, s_out, s_in, s_h, s_w,
    channels: tl.constexpr, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, CO: tl.constexpr,
    COPIES: tl.constexpr, BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """z = conv(images), one product over all 9 taps, and the sums of its BN."""
    wait_for_launch_before(OVERLAP)
    k, co = tl.arange(0, K), tl.arange(0, CO)
    tap = k // channels
    at = weight + ((tap // 3) * s_h + (tap % 3) * s_w + (k % channels) * s_in)[:, None] + (co * s_out)[None, :]
    kernel = tl.load(at, mask=(tap < 9)[:, None], other=0.0).to(z.dtype.element_ty)
    for tile in range(tl.program_id(0), tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        x = patches(images, m, positions, i_n, i_c, i_h, i_w, channels, H, W, K).to(z.dtype.element_ty)
        rounded = tl.dot(x, kernel, input_precision="tf32x3").to(z.dtype.element_ty)
        tl.store(z + m[:, None] * CO + co[None, :], rounded, mask=(m < positions)[:, None])
        add_outputs(sums, rounded.to(tl.float32), tile * BM, positions, CO, COPIES, BM)


@triton.jit
def pool(
    z, sums, gamma, beta, statistics, running_mean, running_var, tracked, positions, eps, momentum, carried, pooled,
    C: tl.constexpr, COPIES: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
    BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The average (N, C) over the last map, relu(BN(z) + carried).

    A program an image, and one more, as in `convolve`.
    """
    wait_for_launch_before(OVERLAP)
    n, c = tl.program_id(0), tl.arange(0, C)
    mean, variance, rstd, scale, shift = batch_statistics(sums, gamma, beta, eps, C, COPIES)
    if n == tl.num_programs(0) - 1:
        publish(
            statistics, running_mean, running_var, tracked, mean, variance, rstd, scale, shift, positions, momentum, C
        )
    else:
        total = tl.zeros([C], tl.float32)
        for first in range(0, H * W, BM):
            m = first + tl.arange(0, BM)
            inside = m < H * W
            x = activation(z, carried, n * (H * W) + m, inside, scale, shift, C, H, W, SHORTCUT, CS, HS, WS)
            total += tl.sum(tl.where(inside[:, None], x, 0.0), 0)
        tl.store(pooled + n * C + c, total / (H * W))
