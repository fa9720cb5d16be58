"""Backward pass to the maps: one kernel a convolution, from the gradient behind its BN to that behind the BN before."""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false
import triton
import triton.language as tl

from deepres.kernels.triton.forward import activation
from deepres.kernels.triton.normalisation import MEAN, RSTD, SCALE, SHIFT, finish_gradients, is_last
from deepres.kernels.triton.overlap import wait_for_launch_before


@triton.jit
def through_norm(dy, z, n, h, w, inside, a, b, c, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """dz = a dy + b z + c, BN's backward pass, at positions (n, h, w): (BM, C) in float32, zero outside the map."""
    at = (((n * H + h) * W + w) * C)[:, None] + tl.arange(0, C)[None, :]
    own_dy = tl.load(dy + at, mask=inside[:, None], other=0.0).to(tl.float32)
    own_z = tl.load(z + at, mask=inside[:, None], other=0.0).to(tl.float32)
    return tl.where(inside[:, None], own_dy * a[None, :] + (own_z * b[None, :] + c[None, :]), 0.0)


@triton.jit
def sums_of(dy, z, inside, statistics, C: tl.constexpr):
    """The sums of dy and of dy * xhat over a tile, (C,) each."""
    c = tl.arange(0, C)
    mean, rstd = tl.load(statistics + MEAN * C + c), tl.load(statistics + RSTD * C + c)
    dy = tl.where(inside[:, None], dy, 0.0)
    return tl.sum(dy, 0), tl.sum(dy * ((z - mean[None, :]) * rstd[None, :]), 0)


@triton.jit
def tap_of_gradient(
    tap, dx, dy, z, weight, n, h, w, own, a, b, c, s_out, s_in, s_h, s_w,
    HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr,
):  # fmt: skip
    """dx plus what comes back through one tap, from the output that the tap takes the position to."""
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    row, column = tap // 3, tap % 3
    ho, wo = h + (1 - row), w + (1 - column)
    inside = own & (ho >= 0) & (wo >= 0)
    if STRIDE > 1:
        inside = inside & (ho % STRIDE == 0) & (wo % STRIDE == 0)
        ho, wo = ho // STRIDE, wo // STRIDE
    inside = inside & (ho < HO) & (wo < WO)
    dz = through_norm(dy, z, n, ho, wo, inside, a, b, c, CO, HO, WO).to(dy.dtype.element_ty)
    kernel = tl.load(weight + co[:, None] * s_out + ci[None, :] * s_in + row * s_h + column * s_w)
    return tl.dot(dz, kernel.to(dz.dtype), dx, input_precision="ieee")


@triton.jit
def input_gradient(
    dy, z, coefficients, weight, dx_carried, x, z_in, statistics_in, dy_in, partial, counter,
    gamma_in, coefficients_in, grad_gamma_in, grad_beta_in, positions, s_out, s_in, s_h, s_w,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, SHORTCUT: tl.constexpr, CS: tl.constexpr, STORED: tl.constexpr,
    BM: tl.constexpr, ROWS: tl.constexpr, UNROLL: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The gradient behind BN dy (of the output) to dy_in (of the input, before its ReLU), and the sums of BN's pass.

    SHORTCUT is the stride of the shortcut that began at this input, 0 for none; dx_carried, its gradient, is the
    gradient behind the BN at its end (N, ., ., CS). The ReLU's mask is that of x if STORED, else it is computed.
    """
    wait_for_launch_before(OVERLAP)
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    a, b = tl.load(coefficients + co), tl.load(coefficients + CO + co)
    c = tl.load(coefficients + 2 * CO + co)
    sum_dy, sum_dy_xhat = tl.zeros([CI], tl.float32), tl.zeros([CI], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        own = m < positions
        n, h, w = m // (H * W), m // W % H, m % W
        dx = tl.zeros([BM, CI], tl.float32)
        if UNROLL:
            for tap in tl.static_range(9):
                dx = tap_of_gradient(
                    tap, dx, dy, z, weight, n, h, w, own, a, b, c, s_out, s_in, s_h, s_w, HO, WO, STRIDE, CI, CO
                )
        else:
            for tap in range(9):
                dx = tap_of_gradient(
                    tap, dx, dy, z, weight, n, h, w, own, a, b, c, s_out, s_in, s_h, s_w, HO, WO, STRIDE, CI, CO
                )
        # What comes back through the shortcut.
        if SHORTCUT > 0:
            on = own & (h % SHORTCUT == 0) & (w % SHORTCUT == 0)
            hs: tl.constexpr = (H + SHORTCUT - 1) // SHORTCUT
            ws: tl.constexpr = (W + SHORTCUT - 1) // SHORTCUT
            at = ((n * hs + h // SHORTCUT) * ws + w // SHORTCUT) * CS
            dx += tl.load(dx_carried + at[:, None] + ci[None, :], mask=on[:, None], other=0.0).to(tl.float32)
        # The ReLU of the input, and the sums for its BN.
        at = m[:, None] * CI + ci[None, :]
        raw = tl.load(z_in + at, mask=own[:, None], other=0.0).to(tl.float32)
        if STORED:
            active = tl.load(x + at, mask=own[:, None], other=0.0).to(tl.float32) > 0
        else:
            scale, shift = tl.load(statistics_in + SCALE * CI + ci), tl.load(statistics_in + SHIFT * CI + ci)
            active = raw * scale[None, :] + shift[None, :] > 0
        dx = tl.where(active, dx, 0.0).to(dy_in.dtype.element_ty)
        tl.store(dy_in + at, dx, mask=own[:, None])
        more_dy, more_dy_xhat = sums_of(dx.to(tl.float32), raw, own, statistics_in, CI)
        sum_dy += more_dy
        sum_dy_xhat += more_dy_xhat
    tl.store(partial + tl.program_id(0) * (2 * CI) + ci, sum_dy)
    tl.store(partial + tl.program_id(0) * (2 * CI) + CI + ci, sum_dy_xhat)
    if is_last(counter):
        finish_gradients(
            partial, statistics_in, gamma_in, coefficients_in, grad_gamma_in, grad_beta_in, positions, CI, ROWS
        )


@triton.jit
def unpool(
    grad, z, statistics, carried, dy, partial, counter, gamma, coefficients, grad_gamma, grad_beta, positions,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
    BM: tl.constexpr, ROWS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The gradient (N, C) of the averages to dy behind the last BN, and the sums of its pass."""
    wait_for_launch_before(OVERLAP)
    k = tl.arange(0, C)
    scale, shift = tl.load(statistics + SCALE * C + k), tl.load(statistics + SHIFT * C + k)
    sum_dy, sum_dy_xhat = tl.zeros([C], tl.float32), tl.zeros([C], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        own = m < positions
        n, h, w = m // (H * W), m // W % H, m % W
        x = activation(z, carried, n, h, w, own, scale, shift, C, H, W, SHORTCUT, CS, HS, WS)
        dx = tl.load(grad + n[:, None] * C + k[None, :], mask=own[:, None], other=0.0).to(tl.float32) / (H * W)
        dx = tl.where(x > 0, dx, 0.0).to(dy.dtype.element_ty)
        at = m[:, None] * C + k[None, :]
        tl.store(dy + at, dx, mask=own[:, None])
        raw = tl.load(z + at, mask=own[:, None], other=0.0).to(tl.float32)
        more_dy, more_dy_xhat = sums_of(dx.to(tl.float32), raw, own, statistics, C)
        sum_dy += more_dy
        sum_dy_xhat += more_dy_xhat
    tl.store(partial + tl.program_id(0) * (2 * C) + k, sum_dy)
    tl.store(partial + tl.program_id(0) * (2 * C) + C + k, sum_dy_xhat)
    if is_last(counter):
        finish_gradients(partial, statistics, gamma, coefficients, grad_gamma, grad_beta, positions, C, ROWS)
