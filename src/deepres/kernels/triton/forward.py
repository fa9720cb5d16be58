"""Forward pass: one kernel a convolution, which normalises its input as it reads it and adds up BN's sums."""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false
import triton
import triton.language as tl

from deepres.kernels.triton.normalisation import SCALE, SHIFT, add_tile, finish_statistics, is_last
from deepres.kernels.triton.overlap import wait_for_launch_before


@triton.jit
def activation(
    z, carried, n, h, w, inside, scale, shift,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
):  # fmt: skip
    """relu(scale z + shift + carried) at the positions (n, h, w): (BM, C) in float32, zero outside the map.

    SHORTCUT is the stride of the shortcut, 0 for none; it carries the map (N, HS, WS, CS), with zeros for new channels.
    """
    c = tl.arange(0, C)
    at = ((n * H + h) * W + w) * C
    y = tl.load(z + at[:, None] + c[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
    y = y * scale[None, :] + shift[None, :]
    if SHORTCUT > 0:
        at = ((n * HS + h * SHORTCUT) * WS + w * SHORTCUT) * CS
        y += tl.load(carried + at[:, None] + c[None, :], mask=inside[:, None] & (c < CS)[None, :], other=0.0).to(
            tl.float32
        )
    return tl.where(inside[:, None], tl.maximum(y, 0.0), 0.0)


@triton.jit
def tap_of_convolution(
    tap, z, z_in, carried, x_out, weight, n, h, w, own, scale, shift, s_out, s_in, s_h, s_w,
    H: tl.constexpr, W: tl.constexpr, STRIDE: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr, WRITE: tl.constexpr,
):  # fmt: skip
    """z plus one tap's product of the normalised input, which some taps write."""
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    row, column = tap // 3, tap % 3
    hi, wi = h * STRIDE + (row - 1), w * STRIDE + (column - 1)
    inside = own & (hi >= 0) & (hi < H) & (wi >= 0) & (wi < W)
    x = activation(z_in, carried, n, hi, wi, inside, scale, shift, CI, H, W, SHORTCUT, CS, HS, WS)
    kernel = tl.load(weight + ci[:, None] * s_in + co[None, :] * s_out + row * s_h + column * s_w)
    x = x.to(z_in.dtype.element_ty)
    if WRITE:
        if (row > 0) & (row <= STRIDE) & (column > 0) & (column <= STRIDE):  # these cover each position once
            at = ((n * H + hi) * W + wi) * CI
            tl.store(x_out + at[:, None] + ci[None, :], x, mask=inside[:, None])
    return tl.dot(x, kernel.to(x.dtype), z, input_precision="ieee")


@triton.jit
def convolve(
    z_in, statistics_in, carried, x_out, weight, z_out, partial, counter,
    statistics, gamma, beta, running_mean, running_var, tracked, positions, eps, momentum, s_out, s_in, s_h, s_w,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr, WRITE: tl.constexpr,
    BM: tl.constexpr, ROWS: tl.constexpr, UNROLL: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """z = conv(relu(BN(z_in) + carried)), (positions, CO), and the statistics of its BN.

    With WRITE the input, which the next shortcut carries, is written to x_out.
    """
    wait_for_launch_before(OVERLAP)
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    scale, shift = tl.load(statistics_in + SCALE * CI + ci), tl.load(statistics_in + SHIFT * CI + ci)
    mean, squares, seen = tl.zeros([CO], tl.float32), tl.zeros([CO], tl.float32), 0.0
    for tile in range(tl.program_id(0), tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        n, h, w, own = m // (HO * WO), m // WO % HO, m % WO, m < positions
        z = tl.zeros([BM, CO], tl.float32)
        if UNROLL:
            for tap in tl.static_range(9):
                z = tap_of_convolution(
                    tap, z, z_in, carried, x_out, weight, n, h, w, own, scale, shift, s_out, s_in, s_h, s_w,
                    H, W, STRIDE, CI, CO, SHORTCUT, CS, HS, WS, WRITE,
                )  # fmt: skip
        else:
            for tap in range(9):
                z = tap_of_convolution(
                    tap, z, z_in, carried, x_out, weight, n, h, w, own, scale, shift, s_out, s_in, s_h, s_w,
                    H, W, STRIDE, CI, CO, SHORTCUT, CS, HS, WS, WRITE,
                )  # fmt: skip
        # The raw output, and its sums as it is stored.
        rounded = z.to(z_out.dtype.element_ty)
        tl.store(z_out + m[:, None] * CO + co[None, :], rounded, mask=(m < positions)[:, None])
        mean, squares, seen = add_tile(rounded.to(tl.float32), m < positions, mean, squares, seen)
    tl.store(partial + tl.program_id(0) * (2 * CO) + co, mean)
    tl.store(partial + tl.program_id(0) * (2 * CO) + CO + co, squares)
    if is_last(counter):
        finish_statistics(
            partial, statistics, gamma, beta, running_mean, running_var, tracked, positions, eps, momentum, CO, BM, ROWS
        )


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
    images, weight, z_out, partial, counter,
    statistics, gamma, beta, running_mean, running_var, tracked, positions, eps, momentum,
    i_n, i_c, i_h, i_w, s_out, s_in, s_h, s_w,
    channels: tl.constexpr, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, CO: tl.constexpr,
    BM: tl.constexpr, ROWS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """z = conv(images), one product over all 9 taps, and the statistics of its BN."""
    wait_for_launch_before(OVERLAP)
    k, co = tl.arange(0, K), tl.arange(0, CO)
    tap = k // channels
    at = weight + ((tap // 3) * s_h + (tap % 3) * s_w + (k % channels) * s_in)[:, None] + (co * s_out)[None, :]
    kernel = tl.load(at, mask=(tap < 9)[:, None], other=0.0).to(z_out.dtype.element_ty)
    mean, squares, seen = tl.zeros([CO], tl.float32), tl.zeros([CO], tl.float32), 0.0
    for tile in range(tl.program_id(0), tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        x = patches(images, m, positions, i_n, i_c, i_h, i_w, channels, H, W, K).to(z_out.dtype.element_ty)
        rounded = tl.dot(x, kernel, input_precision="ieee").to(z_out.dtype.element_ty)
        tl.store(z_out + m[:, None] * CO + co[None, :], rounded, mask=(m < positions)[:, None])
        mean, squares, seen = add_tile(rounded.to(tl.float32), m < positions, mean, squares, seen)
    tl.store(partial + tl.program_id(0) * (2 * CO) + co, mean)
    tl.store(partial + tl.program_id(0) * (2 * CO) + CO + co, squares)
    if is_last(counter):
        finish_statistics(
            partial, statistics, gamma, beta, running_mean, running_var, tracked, positions, eps, momentum, CO, BM, ROWS
        )


@triton.jit
def pool(
    z, statistics, carried, pooled,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr, BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The average (N, C) over the last map, relu(BN(z) + carried); a program an image."""
    wait_for_launch_before(OVERLAP)
    n, c = tl.program_id(0), tl.arange(0, C)
    scale, shift = tl.load(statistics + SCALE * C + c), tl.load(statistics + SHIFT * C + c)
    total = tl.zeros([C], tl.float32)
    for first in range(0, H * W, BM):
        m = first + tl.arange(0, BM)
        x = activation(z, carried, n, m // W, m % W, m < H * W, scale, shift, C, H, W, SHORTCUT, CS, HS, WS)
        total += tl.sum(x, 0)
    tl.store(pooled + n * C + c, total / (H * W))
