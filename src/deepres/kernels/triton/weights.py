"""Backward pass to the weights: all convolutions of one shape in one launch, each divided among programs.

A program adds up the products of its share of the positions; the programs' results are added in a fixed order.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false
import triton
import triton.language as tl

from deepres.kernels.triton.backward import slope_and_value, through_norm
from deepres.kernels.triton.forward import patches
from deepres.kernels.triton.normalisation import slopes


@triton.jit
def weight_gradient(
    x, dz, grad, positions_in, positions, split_size, layer_size, s_out, s_in, s_h, s_w,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, TAPS: tl.constexpr, VALID: tl.constexpr,
    BM: tl.constexpr,
):  # fmt: skip
    """Program (split, group, layer): the gradient of VALID taps of one layer's kernel, over its share of positions.

    x and dz are the maps of successive layers, (layers, positions, channels).
    """
    split, group, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    x += layer * positions_in.to(tl.int64) * CI
    dz += layer * positions.to(tl.int64) * CO
    co, row = tl.arange(0, CO), tl.arange(0, TAPS * CI)
    tap = group * VALID + row // CI
    known = (row // CI < VALID) & (tap < 9)
    # The products over this program's positions.
    result = tl.zeros([TAPS * CI, CO], tl.float32)
    for tile in range(split, tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        n, h, w, own = m // (HO * WO), m // WO % HO, m % WO, m < positions
        hi, wi = (h * STRIDE)[:, None] + (tap // 3 - 1)[None, :], (w * STRIDE)[:, None] + (tap % 3 - 1)[None, :]
        inside = own[:, None] & known[None, :] & (hi >= 0) & (hi < H) & (wi >= 0) & (wi < W)
        at = ((n * H)[:, None] + hi) * (W * CI) + wi * CI + (row % CI)[None, :]
        part = tl.load(x + at, mask=inside, other=0.0)
        own_dz = tl.load(dz + (m * CO)[:, None] + co[None, :], mask=own[:, None], other=0.0)
        result = tl.dot(tl.trans(part), own_dz, result, input_precision="tf32x3")
    # Where the kernel's weights lie.
    at = (tap // 3) * s_h + (tap % 3) * s_w + (row % CI) * s_in
    grad += split * split_size + layer * layer_size
    tl.store(grad + at[:, None] + (co * s_out)[None, :], result, mask=known[:, None])


@triton.jit
def first_weight_gradient(
    images, dy, z, sums, statistics, gamma, grad_gamma, grad_beta, grad, positions, split_size,
    i_n, i_c, i_h, i_w, s_out, s_in, s_h, s_w,
    channels: tl.constexpr, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, CO: tl.constexpr,
    COPIES: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """The gradient of the first layer's kernel, over this program's share of positions."""
    split, co = tl.program_id(0), tl.arange(0, CO)
    a, b, c = slopes(sums, statistics, gamma, grad_gamma, grad_beta, split == 0, positions, CO, COPIES)
    result = tl.zeros([K, CO], tl.float32)
    for tile in range(split, tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        own_dy, own_z = slope_and_value(dy, z, m, m < positions, CO)
        dz = through_norm(own_dy, own_z, a, b, c).to(z.dtype.element_ty)
        x = patches(images, m, positions, i_n, i_c, i_h, i_w, channels, H, W, K).to(dz.dtype)
        result = tl.dot(tl.trans(x), dz, result, input_precision="tf32x3")
    k = tl.arange(0, K)
    tap = k // channels
    at = grad + split * split_size + (tap // 3) * s_h + (tap % 3) * s_w + (k % channels) * s_in
    tl.store(at[:, None] + (co * s_out)[None, :], result, mask=(tap < 9)[:, None])
