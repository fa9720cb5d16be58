"""Forward pass: one kernel a convolution. Its programs normalise the input, multiply, and add up BN's sums.

A program first writes the normalised input of its tile and of the rows around it; neighbours write those rows, too,
with the same values. Then the nine taps read it.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
import triton
import triton.language as tl

from deepres.kernels.triton.normalisation import add_outputs, batch_statistics, publish


@triton.jit
def values_at(
    z, carried, m, inside, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
):  # fmt: skip
    """z and what a shortcut adds behind its BN at the positions m, (BM, C) each.

    SHORTCUT is the stride of the shortcut, 0 for none; it carries the map (N, HS, WS, CS), with zeros for new channels.
    """
    c = tl.arange(0, C)
    at = (m * C)[:, None] + c[None, :]
    own = tl.load(z + at, mask=inside[:, None], other=0.0)
    added = own
    if SHORTCUT == 1:
        added = tl.load(carried + at, mask=inside[:, None], other=0.0)
    if SHORTCUT > 1:
        at = ((m // (H * W) * HS + m // W % H * SHORTCUT) * WS + m % W * SHORTCUT) * CS
        known = inside[:, None] & (c < CS)[None, :]
        added = tl.load(carried + at[:, None] + c[None, :], mask=known, other=0.0)
    return own, added


@triton.jit
def activation(own, added, scale, shift, SHORTCUT: tl.constexpr):
    """relu(scale z + shift + what the shortcut adds) of `values_at`, in float32."""
    y = own.to(tl.float32) * scale[None, :] + shift[None, :]
    if SHORTCUT > 0:
        y += added.to(tl.float32)
    return tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def convolve(
    z_in, sums_in, gamma_in, beta_in, statistics_in, running_mean, running_var, tracked, positions_in, eps, momentum,
    carried, x, weight, z, sums, positions,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, COPIES_IN: tl.constexpr, COPIES: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
    BM: tl.constexpr, BAND: tl.constexpr, TAPS: tl.constexpr, VALID: tl.constexpr,
):  # fmt: skip
    """x = relu(BN(z_in) + carried), (positions_in, CI); z = conv(x), (positions, CO); and the sums of its BN.

    VALID taps, which divide 9, are one product of length TAPS * CI, a power of two. There is one program more than
    tiles: it writes down the statistics, while the others multiply.
    """
    ci, co, k = tl.arange(0, CI), tl.arange(0, CO), tl.arange(0, TAPS * CI)
    if tl.program_id(0) == tl.num_programs(0) - 1:
        mean, variance, rstd, scale, shift = batch_statistics(sums_in, gamma_in, beta_in, eps, CI, COPIES_IN)
        publish(
            statistics_in, running_mean, running_var, tracked, mean, variance, rstd, scale, shift, positions_in,
            momentum, CI,
        )  # fmt: skip
    else:
        # The rows that the tile's taps cover, normalised; the next ones are asked for before they are needed.
        first = tl.program_id(0) * BM
        last = tl.minimum(first + BM, positions) - 1
        top = first // (HO * WO) * H + tl.maximum(first // WO % HO * STRIDE - 1, 0)
        bottom = last // (HO * WO) * H + tl.minimum(last // WO % HO * STRIDE + 1, H - 1)
        end = (bottom + 1) * W
        m = top * W + tl.arange(0, BAND)
        own, added = values_at(z_in, carried, m, m < end, CI, H, W, SHORTCUT, CS, HS, WS)
        mean, variance, rstd, scale, shift = batch_statistics(sums_in, gamma_in, beta_in, eps, CI, COPIES_IN)
        for start in range(top * W, end, BAND):
            y = activation(own, added, scale, shift, SHORTCUT).to(x.dtype.element_ty)
            m = start + tl.arange(0, BAND)
            later = m + BAND
            own, added = values_at(z_in, carried, later, later < end, CI, H, W, SHORTCUT, CS, HS, WS)
            tl.store(x + (m * CI)[:, None] + ci[None, :], y, mask=(m < end)[:, None])
        tl.debug_barrier()
        # The products of the taps.
        m = first + tl.arange(0, BM)
        n, h, w, inner = m // (HO * WO), m // WO % HO * STRIDE, m % WO * STRIDE, m < positions
        product = tl.zeros([BM, CO], tl.float32)
        for group in range(9 // VALID):
            tap = group * VALID + k // CI
            hi, wi = h[:, None] + (tap // 3 - 1)[None, :], w[:, None] + (tap % 3 - 1)[None, :]
            inside = inner[:, None] & (k < VALID * CI)[None, :] & (hi >= 0) & (hi < H) & (wi >= 0) & (wi < W)
            taken = ((n * H)[:, None] + hi) * (W * CI) + wi * CI + (k % CI)[None, :]
            part = tl.load(x + taken, mask=inside, other=0.0)
            rows = group * (VALID * CI) + k
            kernel = tl.load(
                weight + rows[:, None] + (co * (9 * CI))[None, :], mask=(k < VALID * CI)[:, None], other=0.0
            )
            product = tl.dot(part, kernel, product, input_precision="tf32x3")
        # The raw output, and its sums as it is stored.
        rounded = product.to(z.dtype.element_ty)
        tl.store(z + m[:, None] * CO + co[None, :], rounded, mask=inner[:, None])
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
    COPIES: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """z = conv(images), one product over all 9 taps, and the sums of its BN."""
    k, co = tl.arange(0, K), tl.arange(0, CO)
    tap = k // channels
    at = weight + ((tap // 3) * s_h + (tap % 3) * s_w + (k % channels) * s_in)[:, None] + (co * s_out)[None, :]
    kernel = tl.load(at, mask=(tap < 9)[:, None], other=0.0).to(z.dtype.element_ty)
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    x = patches(images, m, positions, i_n, i_c, i_h, i_w, channels, H, W, K).to(z.dtype.element_ty)
    rounded = tl.dot(x, kernel, input_precision="tf32x3").to(z.dtype.element_ty)
    tl.store(z + m[:, None] * CO + co[None, :], rounded, mask=(m < positions)[:, None])
    add_outputs(sums, rounded.to(tl.float32), tl.program_id(0) * BM, positions, CO, COPIES, BM)


@triton.jit
def pool(
    z, sums, gamma, beta, statistics, running_mean, running_var, tracked, positions, eps, momentum, carried, pooled,
    C: tl.constexpr, COPIES: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
    BM: tl.constexpr,
):  # fmt: skip
    """The average (N, C) over the last map, relu(BN(z) + carried).

    A program an image, and one more, as in `convolve`.
    """
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
            own, added = values_at(z, carried, n * (H * W) + m, inside, C, H, W, SHORTCUT, CS, HS, WS)
            x = activation(own, added, scale, shift, SHORTCUT)
            total += tl.sum(tl.where(inside[:, None], x, 0.0), 0)
        tl.store(pooled + n * C + c, total / (H * W))
