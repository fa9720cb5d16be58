"""Backward pass to the maps: one kernel a convolution, from the gradient behind its BN to that behind the BN before.

dy is the gradient behind a BN, dz that before it. As in the forward pass, a program first writes dz of its tile and of
the rows around it; then the nine taps read it.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
import triton
import triton.language as tl

from deepres.kernels.triton.forward import activation
from deepres.kernels.triton.normalisation import SCALE, SHIFT, add_gradients, slopes
from deepres.kernels.triton.overlap import wait_for_launch_before


@triton.jit
def through_norm(dy, z, m, inside, a, b, c, C: tl.constexpr):
    """dz = a dy + b z + c at the positions m: (BM, C) in float32, zero outside the map."""
    at = (m * C)[:, None] + tl.arange(0, C)[None, :]
    own_dy = tl.load(dy + at, mask=inside[:, None], other=0.0).to(tl.float32)
    own_z = tl.load(z + at, mask=inside[:, None], other=0.0).to(tl.float32)
    return tl.where(inside[:, None], own_dy * a[None, :] + (own_z * b[None, :] + c[None, :]), 0.0)


@triton.jit
def input_gradient(
    dy, z, sums, statistics, gamma, grad_gamma, grad_beta, dz, positions,
    weight, dx_carried, x, z_in, statistics_in, dy_in, sums_in, positions_in,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, COPIES_IN: tl.constexpr, COPIES: tl.constexpr, SHORTCUT: tl.constexpr,
    BM: tl.constexpr, BAND: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """From dy, behind the BN of the output, to dz, and to dy_in, behind the BN of the input x, and the sums of its BN.

    SHORTCUT is the stride of the shortcut that began at x, 0 for none; dx_carried, its gradient, is dy behind the BN
    at its end.
    """
    wait_for_launch_before(OVERLAP)
    ci, co = tl.arange(0, CI), tl.arange(0, CO)
    first_program = tl.program_id(0) == 0
    a, b, c = slopes(sums, statistics, gamma, grad_gamma, grad_beta, first_program, positions, CO, COPIES)
    for tile in range(tl.program_id(0), tl.cdiv(positions_in, BM), tl.num_programs(0)):
        # dz in the rows from which the taps take.
        first, last = tile * BM, tl.minimum(tile * BM + BM, positions_in) - 1
        top = first // (H * W) * HO + tl.maximum(first // W % H - 1, 0) // STRIDE
        bottom = last // (H * W) * HO + tl.minimum((last // W % H + 1) // STRIDE, HO - 1)
        for start in range(top * WO, (bottom + 1) * WO, BAND):
            m = start + tl.arange(0, BAND)
            inside = m < (bottom + 1) * WO
            values = through_norm(dy, z, m, inside, a, b, c, CO).to(dz.dtype.element_ty)
            tl.store(dz + (m * CO)[:, None] + co[None, :], values, mask=inside[:, None])
        tl.debug_barrier()
        # What the end of this tile needs, asked for early.
        m = first + tl.arange(0, BM)
        n, h, w, own = m // (H * W), m // W % H, m % W, m < positions_in
        at = m[:, None] * CI + ci[None, :]
        active = tl.load(x + at, mask=own[:, None], other=0.0)
        raw = tl.load(z_in + at, mask=own[:, None], other=0.0)
        if SHORTCUT > 0:
            on = own & (h % SHORTCUT == 0) & (w % SHORTCUT == 0)
            hs: tl.constexpr = (H + SHORTCUT - 1) // SHORTCUT
            ws: tl.constexpr = (W + SHORTCUT - 1) // SHORTCUT
            end = ((n * hs + h // SHORTCUT) * ws + w // SHORTCUT) * CO
            back = tl.load(dx_carried + end[:, None] + ci[None, :], mask=on[:, None], other=0.0)
        # What comes back through each tap, from the output that the tap takes the position to.
        dx = tl.zeros([BM, CI], tl.float32)
        for tap in range(9):
            ho, wo = h + (1 - tap // 3), w + (1 - tap % 3)
            inside = own & (ho >= 0) & (wo >= 0)
            if STRIDE > 1:
                inside = inside & (ho % STRIDE == 0) & (wo % STRIDE == 0)
                ho, wo = ho // STRIDE, wo // STRIDE
            inside = inside & (ho < HO) & (wo < WO)
            taken = ((n * HO + ho) * WO + wo) * CO
            part = tl.load(dz + taken[:, None] + co[None, :], mask=inside[:, None], other=0.0)
            kernel = tl.load(weight + co[:, None] * (9 * CI) + ci[None, :] + tap * CI)
            dx = tl.dot(part, kernel, dx, input_precision="tf32x3")
        # What comes back through the shortcut, and the ReLU of the input; the sums for its BN.
        if SHORTCUT > 0:
            dx += back.to(tl.float32)
        dx = tl.where(active.to(tl.float32) > 0, dx, 0.0).to(dy_in.dtype.element_ty)
        tl.store(dy_in + at, dx, mask=own[:, None])
        add_gradients(
            sums_in, dx.to(tl.float32), raw.to(tl.float32), first, positions_in, statistics_in, CI, COPIES_IN, BM
        )


@triton.jit
def unpool(
    grad, z, statistics, carried, dy, sums, positions,
    C: tl.constexpr, COPIES: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    SHORTCUT: tl.constexpr, CS: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr,
    BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The gradient (N, C) of the averages to dy behind the last BN, and the sums of its backward pass."""
    wait_for_launch_before(OVERLAP)
    k = tl.arange(0, C)
    scale, shift = tl.load(statistics + SCALE * C + k), tl.load(statistics + SHIFT * C + k)
    for tile in range(tl.program_id(0), tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        own = m < positions
        x = activation(z, carried, m, own, scale, shift, C, H, W, SHORTCUT, CS, HS, WS)
        n = m // (H * W)
        dx = tl.load(grad + n[:, None] * C + k[None, :], mask=own[:, None], other=0.0).to(tl.float32) / (H * W)
        dx = tl.where(x > 0, dx, 0.0).to(dy.dtype.element_ty)
        at = m[:, None] * C + k[None, :]
        tl.store(dy + at, dx, mask=own[:, None])
        raw = tl.load(z + at, mask=own[:, None], other=0.0).to(tl.float32)
        add_gradients(sums, dx.to(tl.float32), raw, tile * BM, positions, statistics, C, COPIES, BM)
