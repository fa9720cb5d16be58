"""Backward pass to the weights: all convolutions of one shape in one launch, each divided among programs.

A program adds up the products of its share of the positions; `torch.sum` adds the programs' results in a fixed order.
"""

# pyright: basic, reportUnknownParameterType=false, reportOperatorIssue=false
import triton
import triton.language as tl

from deepres.kernels.triton.backward import through_norm
from deepres.kernels.triton.forward import patches
from deepres.kernels.triton.normalisation import SCALE, SHIFT
from deepres.kernels.triton.overlap import wait_for_launch_before


@triton.jit
def weight_gradient(
    z_in, statistics_in, x_in, dy, z, coefficients, grad, positions, split_size, layer_size, s_out, s_in, s_h, s_w,
    H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, STRIDE: tl.constexpr,
    CI: tl.constexpr, CO: tl.constexpr, FROM_X: tl.constexpr, TAPS: tl.constexpr, VALID: tl.constexpr,
    BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Program (split, group, layer): the gradient of VALID taps of one layer's kernel, over its share of positions.

    z_in, dy and z are maps of successive layers, (layers, positions, channels). Where FROM_X is 0 or 1, the layers of
    that parity begin a block: their inputs are the stored maps x_in. FROM_X is 2 where none does.
    """
    wait_for_launch_before(OVERLAP)
    # The maps of this layer.
    split, group, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    images = positions // (HO * WO)
    size_in, size_out = (images * (H * W * CI)).to(tl.int64), (positions * CO).to(tl.int64)
    z_in += layer * size_in
    statistics_in += layer * (4 * CI)
    dy += layer * size_out
    z += layer * size_out
    coefficients += layer * (3 * CO)
    ci, co, j = tl.arange(0, CI), tl.arange(0, CO), tl.arange(0, TAPS)
    scale, shift = tl.load(statistics_in + SCALE * CI + ci), tl.load(statistics_in + SHIFT * CI + ci)
    if FROM_X < 2:
        if layer % 2 == FROM_X:  # x is normalised already, and not below zero
            z_in = x_in + (layer // 2) * size_in
            scale, shift = tl.full([CI], 1.0, tl.float32), tl.zeros([CI], tl.float32)
    a, b = tl.load(coefficients + co), tl.load(coefficients + CO + co)
    c = tl.load(coefficients + 2 * CO + co)
    # The products over this program's positions.
    tap = group * VALID + j
    known = (j < VALID) & (tap < 9)
    result = tl.zeros([TAPS * CI, CO], tl.float32)
    for tile in range(split, tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        own = m < positions
        n, h, w = m // (HO * WO), m // WO % HO, m % WO
        dz = through_norm(dy, z, n, h, w, own, a, b, c, CO, HO, WO).to(z.dtype.element_ty)
        hi = (h * STRIDE)[:, None] + (tap // 3 - 1)[None, :]
        wi = (w * STRIDE)[:, None] + (tap % 3 - 1)[None, :]
        inside = (own[:, None] & known[None, :] & (hi >= 0) & (hi < H) & (wi >= 0) & (wi < W))[:, :, None]
        at = ((n[:, None] * H + hi) * W + wi) * CI
        x = tl.load(z_in + at[:, :, None] + ci[None, None, :], mask=inside, other=0.0).to(tl.float32)
        x = tl.where(inside, tl.maximum(x * scale[None, None, :] + shift[None, None, :], 0.0), 0.0)
        x = tl.reshape(x.to(dz.dtype), [BM, TAPS * CI])
        result = tl.dot(tl.trans(x), dz, result, input_precision="ieee")
    # Where the kernel's weights lie.
    row = tl.arange(0, TAPS * CI)
    tap = group * VALID + row // CI
    at = (tap // 3) * s_h + (tap % 3) * s_w + (row % CI) * s_in
    grad += split * split_size + layer * layer_size
    known = (row // CI < VALID) & (tap < 9)
    tl.store(grad + at[:, None] + (co * s_out)[None, :], result, mask=known[:, None])


@triton.jit
def first_weight_gradient(
    images, dy, z, coefficients, grad, positions, split_size, i_n, i_c, i_h, i_w, s_out, s_in, s_h, s_w,
    channels: tl.constexpr, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, CO: tl.constexpr, BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The gradient of the first layer's kernel, over this program's share of positions."""
    wait_for_launch_before(OVERLAP)
    split, co = tl.program_id(0), tl.arange(0, CO)
    a, b = tl.load(coefficients + co), tl.load(coefficients + CO + co)
    c = tl.load(coefficients + 2 * CO + co)
    result = tl.zeros([K, CO], tl.float32)
    for tile in range(split, tl.cdiv(positions, BM), tl.num_programs(0)):
        m = tile * BM + tl.arange(0, BM)
        n, h, w = m // (H * W), m // W % H, m % W
        dz = through_norm(dy, z, n, h, w, m < positions, a, b, c, CO, H, W).to(z.dtype.element_ty)
        x = patches(images, m, positions, i_n, i_c, i_h, i_w, channels, H, W, K).to(dz.dtype)
        result = tl.dot(tl.trans(x), dz, result, input_precision="ieee")
    k = tl.arange(0, K)
    tap = k // channels
    at = grad + split * split_size + (tap // 3) * s_h + (tap % 3) * s_w + (k % channels) * s_in
    tl.store(at[:, None] + (co * s_out)[None, :], result, mask=(tap < 9)[:, None])
