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

    SHORTCUT says that one began at x; dx_carried, its gradient, is dy behind the BN at its end. TAPS and VALID are as
    in `convolve`, with channels of the output. With a stride of 2 a program's positions are all even or all odd in
    height, and in width, since then the same taps reach them: 1, 2, 2 or 4 of the 9.
    """
    ci, co, k = tl.arange(0, CI), tl.arange(0, CO), tl.arange(0, TAPS * CO)
    per_kind = tl.cdiv(positions, BM)
    odd_h, odd_w = tl.program_id(0) // per_kind // STRIDE, tl.program_id(0) // per_kind % STRIDE
    first = tl.program_id(0) % per_kind * BM
    # dz in the rows from which the taps take; the next ones are asked for before they are needed.
    last = tl.minimum(first + BM, positions) - 1
    top = first // (HO * WO) * HO + tl.maximum(first // WO % HO - (2 - STRIDE), 0)
    bottom = last // (HO * WO) * HO + tl.minimum(last // WO % HO + 1, HO - 1)
    end = (bottom + 1) * WO
    m = top * WO + tl.arange(0, BAND)
    own_dy, own_z = slope_and_value(dy, z, m, m < end, CO)
    publishes = tl.program_id(0) == 0
    a, b, c = slopes(sums, statistics, gamma, grad_gamma, grad_beta, publishes, positions, CO, COPIES)
    for start in range(top * WO, end, BAND):
        values = through_norm(own_dy, own_z, a, b, c).to(dz.dtype.element_ty)
        m = start + tl.arange(0, BAND)
        own_dy, own_z = slope_and_value(dy, z, m + BAND, m + BAND < end, CO)
        tl.store(dz + (m * CO)[:, None] + co[None, :], values, mask=(m < end)[:, None])
    tl.debug_barrier()
    # What the end needs, asked for early.
    m = first + tl.arange(0, BM)
    n, ho, wo = m // (HO * WO), m // WO % HO, m % WO
    h, w = ho * STRIDE + odd_h, wo * STRIDE + odd_w
    own = (m < positions) & (h < H) & (w < W)
    place = (((n * H + h) * W + w) * CI)[:, None] + ci[None, :]
    active = tl.load(x + place, mask=own[:, None], other=0.0)
    raw = tl.load(z_in + place, mask=own[:, None], other=0.0)
    if SHORTCUT:
        on = own & (odd_h + odd_w == 0)
        back = tl.load(dx_carried + (m * CO)[:, None] + ci[None, :], mask=on[:, None], other=0.0)
    # What comes back through the taps, from the outputs that each tap takes the position to.
    dx = tl.zeros([BM, CI], tl.float32)
    for group in range(9 // VALID if STRIDE == 1 else (1 + odd_h) * (1 + odd_w)):
        if STRIDE == 1:
            tap = group * VALID + k // CO
            down, right = 1 - tap // 3, 1 - tap % 3
        else:
            down, right = odd_h - group // (1 + odd_w), odd_w - group % (1 + odd_w)
            tap = (1 + odd_h - 2 * down) * 3 + (1 + odd_w - 2 * right) + k // CO
            down, right = down + k // CO, right + k // CO
        to_h, to_w = ho[:, None] + down[None, :], wo[:, None] + right[None, :]
        inside = own[:, None] & (k < VALID * CO)[None, :] & (to_h >= 0) & (to_h < HO) & (to_w >= 0) & (to_w < WO)
        taken = ((n * HO)[:, None] + to_h) * (WO * CO) + to_w * CO + (k % CO)[None, :]
        part = tl.load(dz + taken, mask=inside, other=0.0)
        rows = k % CO * (9 * CI) + tap * CI
        kernel = tl.load(weight + rows[:, None] + ci[None, :], mask=(k < VALID * CO)[:, None], other=0.0)
        dx = tl.dot(part, kernel, dx, input_precision="tf32x3")
    # What comes back through the shortcut, and the ReLU of the input; the sums for its BN.
    if SHORTCUT:
        dx += back.to(tl.float32)
    dx = tl.where(active.to(tl.float32) > 0, dx, 0.0).to(dy_in.dtype.element_ty)
    tl.store(dy_in + place, dx, mask=own[:, None])
    share = tl.minimum(positions - first, BM).to(tl.float32) / positions_in
    add_gradients(sums_in, dx.to(tl.float32), raw.to(tl.float32), share, statistics_in, CI, COPIES_IN)


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
    share = tl.minimum(positions - first, BM).to(tl.float32) / positions
    add_gradients(sums, dx.to(tl.float32), raw.to(tl.float32), share, statistics, C, COPIES)
