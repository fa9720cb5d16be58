"""The Triton kernels of `pointwise`: products of maps (rows, channels) and weights, with BN's passes before and behind.

A program computes tiles of the same columns for one part of the rows, one after the other. WHOLE: a tile's channels are
read at once, the weights stay, and the next tiles are on their way during a product; else in steps of INNER.
"""

# pyright: basic, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false, reportAssignmentType=false

from typing import Any

import triton
import triton.language as tl

from deepres.kernels.triton.batch_norm_kernels import BITS, COUNTS, SIGN, octets_of, passed_by_bits

jit: Any = triton.jit  # a kernel's launch takes a grid, and ints for its constants


@jit
def summed(value, given, added, added_given, start, y, bits, row, depth, columns, inside, writes):
    """ReLU(BN(value) + added), which is written together with its bits by one of several programs."""
    scale, shift = tl.load(given + 2 * columns + depth)[None, :], tl.load(given + 3 * columns + depth)[None, :]
    places = row[:, None] * columns + depth[None, :]
    carried = tl.load(added + places, mask=inside, other=0).to(tl.float32)
    if added_given is not None:
        factor = tl.load(added_given + start + 2 * columns + depth)[None, :]
        carried = carried * factor + tl.load(added_given + start + 3 * columns + depth)[None, :]
    result = value.to(tl.float32) * scale + shift + carried
    # Where the ReLU passes: eight channels a byte.
    octets = octets_of(result > 0)
    octet_places = row[:, None] * (columns // 8) + tl.arange(0, depth.shape[0] // 8)[None, :]
    tl.store(bits + octet_places, octets, mask=inside & writes)
    value = tl.where(inside & ~(result < 0), result, 0).to(value.dtype)
    tl.store(y + places, value, mask=inside & writes)
    return value


@jit(do_not_specialize=COUNTS)
def multiply(
    x, given, added, added_given, y, bits, weights, z, sums, rows, inner, columns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """z = x @ weights (columns, inner) transposed; the sums of z and of its squares over one part of the rows.

    With the statistics `given`, x is the output of a convolution, and the input ReLU(BN(x) + added) is computed on the
    way, as by `normalise` of `batch_norm`; it is written to y, and where its ReLU has passed to bits.
    """
    part, parts = tl.program_id(1), tl.num_programs(1)
    row, depth = tl.arange(0, ROWS), tl.arange(0, INNER)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    weights += column[None, :] * inner + depth[:, None]
    if WHOLE:
        factor = tl.load(weights)
    total = tl.zeros((COLUMNS,), tl.float32)
    squares = tl.zeros((COLUMNS,), tl.float32)
    each = tl.cdiv(tl.cdiv(rows, ROWS), parts)
    for step in range(0, each):
        first = (part * each + step) * ROWS
        inside = (row < rows - first)[:, None]
        # The product.
        places = x + first.to(tl.int64) * inner + row[:, None] * inner + depth[None, :]
        if WHOLE:
            result = tl.dot(tl.load(places, mask=inside, other=0), factor, input_precision="ieee")
        else:
            result = tl.zeros((ROWS, COLUMNS), tl.float32)
            for start in range(0, inner, INNER):
                value = tl.load(places + start, mask=inside, other=0)
                if given is not None:
                    base = first.to(tl.int64) * inner + start
                    value = summed(
                        value, given + start, added + base, added_given, start, y + base, bits + base // 8,
                        row, depth, inner, inside, tl.program_id(0) == 0,
                    )  # fmt: skip
                result = tl.dot(value, tl.load(weights + start), result, input_precision="ieee")
        # Its sums, as it is kept.
        kept = result.to(z.dtype.element_ty)
        tl.store(z + first.to(tl.int64) * columns + row[:, None] * columns + column[None, :], kept, mask=inside)
        value = kept.to(tl.float32)
        total += tl.sum(value, 0)
        squares += tl.sum(value * value, 0)
    out = sums + part * 2 * columns + column
    tl.store(out, total)
    tl.store(out + columns, squares)


@jit
def own_gradient(dy, own, found, line, places, inside, depth, inner):
    """A tile of the gradient of the product's result, from that behind its BN: as `differentiate` of `batch_norm`."""
    g = tl.load(dy + places, mask=inside, other=0).to(tl.float32)
    value = tl.load(own + places, mask=inside, other=0).to(tl.float32)
    mean = tl.load(found + depth)[None, :]
    factor = tl.load(line + depth)[None, :]
    offset = tl.load(line + inner + depth)[None, :]
    pull = tl.load(line + 2 * inner + depth)[None, :]
    return tl.where(inside, g * factor - offset - (value - mean) * pull, 0).to(dy.dtype.element_ty)


@jit(do_not_specialize=COUNTS)
def multiply_back(
    dy, own, own_found, line, dz, weights, other, bits, z, found, projected, projected_found, gradient, sums,
    rows, inner, columns, PASSED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The gradient g = (dz @ weights (inner, columns) [+ other]) where the ReLU has passed, and its sums.

    dz is dy; or, where `own` (the product's result) is given, dy is the gradient behind its BN, and dz is written. The
    sums over one part of the rows are those of g, g * (z - mean), and g * (projected - its mean) if that is given.
    """
    part, parts = tl.program_id(1), tl.num_programs(1)
    row, depth = tl.arange(0, ROWS), tl.arange(0, INNER)
    left = tl.program_id(0) * COLUMNS
    column = left + tl.arange(0, COLUMNS)
    weights += column[None, :] + depth[:, None] * columns
    if WHOLE:
        factor = tl.load(weights)
    mean = tl.load(found + column)[None, :]
    total = tl.zeros((COLUMNS,), tl.float32)
    product = tl.zeros((COLUMNS,), tl.float32)
    projected_product = tl.zeros((COLUMNS,), tl.float32)
    each = tl.cdiv(tl.cdiv(rows, ROWS), parts)
    for step in range(0, each):
        first = (part * each + step) * ROWS
        inside = (row < rows - first)[:, None]
        # The product, of which dz is computed on the way.
        base = first.to(tl.int64) * inner
        places = row[:, None] * inner + depth[None, :]
        if WHOLE:
            result = tl.dot(tl.load(dy + base + places, mask=inside, other=0), factor, input_precision="ieee")
        else:
            result = tl.zeros((ROWS, COLUMNS), tl.float32)
            for start in range(0, inner, INNER):
                if own is None:
                    value = tl.load(dy + base + places + start, mask=inside, other=0)
                else:
                    value = own_gradient(
                        dy + base + start, own + base + start, own_found + start, line + start,
                        places, inside, depth, inner,
                    )  # fmt: skip
                    tl.store(dz + base + places + start, value, mask=inside & (left == 0))
                result = tl.dot(value, tl.load(weights + start * columns), result, input_precision="ieee")
        # The gradient of the ReLU's argument.
        base = first.to(tl.int64) * columns
        places = row[:, None] * columns + column[None, :]
        g = result.to(dy.dtype.element_ty).to(tl.float32)
        if other is not None:
            g += tl.load(other + base + places, mask=inside, other=0).to(tl.float32)
        value = tl.load(z + base + places, mask=inside, other=0).to(tl.float32)
        if PASSED == SIGN:
            scale, shift = (
                tl.load(found + 2 * columns + column)[None, :],
                tl.load(found + 3 * columns + column)[None, :],
            )
            g = tl.where(value * scale + shift > 0, g, 0)
        if PASSED == BITS:
            g = tl.where(passed_by_bits(bits + base // 8, row, left, columns, inside, ROWS, COLUMNS), g, 0)
        tl.store(gradient + base + places, g, mask=inside)
        # Its sums.
        total += tl.sum(g, 0)
        product += tl.sum(g * (value - mean), 0)
        if projected is not None:
            value = tl.load(projected + base + places, mask=inside, other=0).to(tl.float32)
            projected_product += tl.sum(g * (value - tl.load(projected_found + column)[None, :]), 0)
    kinds: tl.constexpr = 2 if projected is None else 3
    out = sums + part * kinds * columns + column
    tl.store(out, total)
    tl.store(out + columns, product)
    if projected is not None:
        tl.store(out + 2 * columns, projected_product)
