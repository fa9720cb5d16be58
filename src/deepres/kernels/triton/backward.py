"""Backward pass to the maps: one kernel a convolution, from the gradient behind its BN to that behind the BN before.

dy is the gradient behind a BN, dz that before it. As in the forward pass, a program first writes dz of its tile and of
the rows around it; then the nine taps read it.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
import triton
import triton.language as tl

from deepres.kernels.triton.forward import activation, values_at
from deepres.kernels.triton.normalisation import SCALE, SHIFT, add_gradients, slopes


@triton.jit
def slope_and_value(dy, z, m, inside, C: tl.constexpr):
    """dy and z at the positions m, (BM, C) each."""
    at = (m * C)[:, None] + tl.arange(0, C)[None, :]
    return tl.load(dy + at, mask=inside[:, None], other=0.0), tl.load(z + at, mask=inside[:, None], other=0.0)


@triton.jit
def through_norm(dy, z, a, b, c):
    """dz = a dy + b z + c, in float32."""
    return dy.to(tl.float32) * a[None, :] + (z.to(tl.float32) * b[None, :] + c[None, :])


@triton.jit
def input_gradient(
    dy, z, sums, statistics, gamma, grad_gamma, grad_beta, dz, positions,
    weight, dx_carried, x, z_in, statistics_in, dy_in, sums_in, positions_in,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, COPIES_IN: tl.constexpr, COPIES: tl.constexpr, SHORTCUT: tl.constexpr,
    BM: tl.constexpr, BAND: tl.constexpr, TAPS: tl.constexpr, VALID: tl.constexpr,
):  # fmt: skip
    """From dy, behind the BN of the output, to dz, and to dy_in, behind the BN of the input x, and the sums of its BN.

    SHORTCUT is the stride of the shortcut that began at x, 0 for none; dx_carried, its gradient, is dy behind the BN
    at its end. TAPS and VALID are as in `convolve`, with channels of the output.
    """
    ci, co, k = tl.arange(0, CI), tl.arange(0, CO), tl.arange(0, TAPS * CO)
    # dz in the rows from which the taps take; the next ones are asked for before they are needed.
    first = tl.program_id(0) * BM
    last = tl.minimum(first + BM, positions_in) - 1
    top = first // (H * W) * HO + tl.maximum(first // W % H - 1, 0) // STRIDE
    bottom = last // (H * W) * HO + tl.minimum((last // W % H + 1) // STRIDE, HO - 1)
    end = (bottom + 1) * WO
    m = top * WO + tl.arange(0, BAND)
    own_dy, own_z = slope_and_value(dy, z, m, m < end, CO)
    a, b, c = slopes(sums, statistics, gamma, grad_gamma, grad_beta, first == 0, positions, CO, COPIES)
    for start in range(top * WO, end, BAND):
        values = through_norm(own_dy, own_z, a, b, c).to(dz.dtype.element_ty)
        m = start + tl.arange(0, BAND)
        own_dy, own_z = slope_and_value(dy, z, m + BAND, m + BAND < end, CO)
        tl.store(dz + (m * CO)[:, None] + co[None, :], values, mask=(m < end)[:, None])
    tl.debug_barrier()
    # What the end needs, asked for early.
    m = first + tl.arange(0, BM)
    n, h, w, own = m // (H * W), m // W % H, m % W, m < positions_in
    place = m[:, None] * CI + ci[None, :]
    active = tl.load(x + place, mask=own[:, None], other=0.0)
    raw = tl.load(z_in + place, mask=own[:, None], other=0.0)
    if SHORTCUT > 0:
        on = own & (h % SHORTCUT == 0) & (w % SHORTCUT == 0)
        hs: tl.constexpr = (H + SHORTCUT - 1) // SHORTCUT
        ws: tl.constexpr = (W + SHORTCUT - 1) // SHORTCUT
        end_place = ((n * hs + h // SHORTCUT) * ws + w // SHORTCUT) * CO
        back = tl.load(dx_carried + end_place[:, None] + ci[None, :], mask=on[:, None], other=0.0)
    # What comes back through the taps, from the outputs that each tap takes the position to.
    dx = tl.zeros([BM, CI], tl.float32)
    for group in range(9 // VALID):
        tap = group * VALID + k // CO
        ho, wo = h[:, None] + (1 - tap // 3)[None, :], w[:, None] + (1 - tap % 3)[None, :]
        inside = own[:, None] & (k < VALID * CO)[None, :] & (ho >= 0) & (wo >= 0)
        if STRIDE > 1:
            inside = inside & (ho % STRIDE == 0) & (wo % STRIDE == 0)
            ho, wo = ho // STRIDE, wo // STRIDE
        inside = inside & (ho < HO) & (wo < WO)
        taken = ((n * HO)[:, None] + ho) * (WO * CO) + wo * CO + (k % CO)[None, :]
        part = tl.load(dz + taken, mask=inside, other=0.0)
        rows = k % CO * (9 * CI) + tap * CI
        kernel = tl.load(weight + rows[:, None] + ci[None, :], mask=(k < VALID * CO)[:, None], other=0.0)
        dx = tl.dot(part, kernel, dx, input_precision="tf32x3")
    # What comes back through the shortcut, and the ReLU of the input; the sums for its BN.
    if SHORTCUT > 0:
        dx += back.to(tl.float32)
    dx = tl.where(active.to(tl.float32) > 0, dx, 0.0).to(dy_in.dtype.element_ty)
    tl.store(dy_in + place, dx, mask=own[:, None])
    add_gradients(sums_in, dx.to(tl.float32), raw.to(tl.float32), first, positions_in, statistics_in, CI, COPIES_IN, BM)


@triton.jit
def unpool(
    grad, z, statistics, carried, dy, sums, positions,
    C: tl.constexpr, COPIES: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
    BM: tl.constexpr,
):  # fmt: skip
    """The gradient (N, C) of the averages to dy behind the last BN, and the sums of its backward pass."""
    k = tl.arange(0, C)
    scale, shift = tl.load(statistics + SCALE * C + k), tl.load(statistics + SHIFT * C + k)
    first = tl.program_id(0) * BM
    m = first + tl.arange(0, BM)
    own = m < positions
    raw, added = values_at(z, carried, m, own, C, H, W, SHORTCUT, CS, HS, WS)
    x = activation(raw, added, scale, shift, SHORTCUT)
    at = (m // (H * W) * C)[:, None] + k[None, :]
    dx = tl.load(grad + at, mask=own[:, None], other=0.0).to(tl.float32) / (H * W)
    dx = tl.where(x > 0, dx, 0.0).to(dy.dtype.element_ty)
    tl.store(dy + m[:, None] * C + k[None, :], dx, mask=own[:, None])
    add_gradients(sums, dx.to(tl.float32), raw.to(tl.float32), first, positions, statistics, C, COPIES, BM)
