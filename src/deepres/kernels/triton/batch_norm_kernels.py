"""The Triton kernels of `batch_norm`: maps are matrices of rows (positions of all images) and columns (channels)."""

# pyright: basic, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false, reportAssignmentType=false

from typing import Any

import triton
import triton.language as tl

jit: Any = triton.jit  # a kernel's launch takes a grid, and ints for its constants
COUNTS = ["parts", "kinds", "place", "rows", "height", "width"]  # a kernel is not compiled anew for each of these

NOTHING, SIGN, BITS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@jit
def octets_of(passed):
    """A bit for each value of a tile, (ROWS, COLUMNS) to (ROWS, COLUMNS // 8), as `passed_by_bits` reads them."""
    eights = tl.reshape(passed.to(tl.int32), (passed.shape[0], passed.shape[1] // 8, 8))
    return tl.sum(eights << tl.arange(0, 8)[None, None, :], 2).to(tl.uint8)


@jit
def passed_by_bits(bits, row, column, columns, inside, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Whether the ReLU has passed the values of a tile: bit c % 8 of byte c // 8 of a row."""
    octet = column // 8 + tl.arange(0, COLUMNS // 8)
    kept = tl.load(bits + row[:, None] * (columns // 8) + octet[None, :], mask=inside & (octet * 8 < columns)[None, :])
    spread = (kept[:, :, None].to(tl.int32) >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(spread, (ROWS, COLUMNS)) != 0


@jit(do_not_specialize=COUNTS)
def sum_rows(z, sums, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sums of z and of its squares over one part of the rows."""
    part, parts = tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    within = column < columns
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((ROWS, COLUMNS), tl.float32)
    each = tl.cdiv(tl.cdiv(rows, parts), ROWS) * ROWS
    for step in range(0, each, ROWS):
        first = part * each + step
        row = tl.arange(0, ROWS)
        mask = (row < rows - first)[:, None] & within[None, :]
        place = z + first.to(tl.int64) * columns
        value = tl.load(place + row[:, None] * columns + column[None, :], mask=mask, other=0).to(tl.float32)
        total += value
        squares += value * value
    out = sums + part * 2 * columns + column
    tl.store(out, tl.sum(total, 0), mask=within)
    tl.store(out + columns, tl.sum(squares, 0), mask=within)


@jit
def sum_parts(sums, kind, kinds, parts, column, columns, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sums of the first and of another kind over all parts, in float64: (COLUMNS,) each."""
    one = tl.zeros((PARTS, COLUMNS), tl.float64)
    other = tl.zeros((PARTS, COLUMNS), tl.float64)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        mask = (part < parts)[:, None] & (column < columns)[None, :]
        place = sums + (part * kinds * columns)[:, None] + column[None, :]
        one += tl.load(place, mask=mask, other=0)
        other += tl.load(place + kind * columns, mask=mask, other=0)
    return tl.sum(one, 0), tl.sum(other, 0)


@jit(do_not_specialize=COUNTS)
def finish_statistics(
    sums, weight, bias, running_mean, running_variance, found, parts, rows, columns, eps, momentum,
    PARTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Mean, 1 / deviation, scale and shift of each channel, and the update of its running statistics."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    within = column < columns
    total, square = sum_parts(sums, 1, 2, parts, column, columns, PARTS, COLUMNS)
    mean = total / rows
    variance = square / rows - mean * mean
    variance = tl.where(variance < 0, 0.0, variance)  # rounding; what is no number stays none
    mean, variance, unbiased = (
        mean.to(tl.float32),
        variance.to(tl.float32),
        (variance * rows / (rows - 1)).to(tl.float32),
    )
    # What the normalization needs.
    inverse = 1 / tl.sqrt_rn(variance + eps)
    scale = tl.load(weight + column, mask=within) * inverse
    tl.store(found + column, mean, mask=within)
    tl.store(found + columns + column, inverse, mask=within)
    tl.store(found + 2 * columns + column, scale, mask=within)
    tl.store(found + 3 * columns + column, tl.load(bias + column, mask=within) - mean * scale, mask=within)
    # Running statistics.
    old = tl.load(running_mean + column, mask=within)
    tl.store(running_mean + column, old + momentum * (mean - old), mask=within)
    old = tl.load(running_variance + column, mask=within)
    tl.store(running_variance + column, old + momentum * (unbiased - old), mask=within)


@jit(do_not_specialize=COUNTS)
def normalise(
    z, found, added, added_found, y, bits, rows, columns, height, width, ADDED: tl.constexpr, EVERY: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """y = ReLU(scale * z + shift [+ added]); ADDED: 0 nothing, 1 a map, 2 a map that is normalised in turn.

    Rows and bits are those of y, which has the positions of z at every EVERY-th place.
    """
    across = tl.cdiv(columns, COLUMNS)
    left = tl.program_id(0) % across * COLUMNS
    first = tl.program_id(0) // across * ROWS
    row, column = tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)
    within, inside = column < columns, (row < rows - first)[:, None]
    mask = inside & within[None, :]
    start = first.to(tl.int64) * columns
    places = row[:, None] * columns + column[None, :]
    source = start + places
    if EVERY > 1:
        high, wide = tl.cdiv(height, EVERY), tl.cdiv(width, EVERY)
        h, w = (first + row) // wide % high * EVERY, (first + row) % wide * EVERY
        at = ((first + row) // (high * wide) * height + h) * width + w
        source = at.to(tl.int64)[:, None] * columns + column[None, :]
    # Normalise.
    scale = tl.load(found + 2 * columns + column, mask=within)[None, :]
    shift = tl.load(found + 3 * columns + column, mask=within)[None, :]
    value = tl.load(z + source, mask=mask).to(tl.float32) * scale + shift
    # Add the shortcut.
    if ADDED > 0:
        carried = tl.load(added + source, mask=mask).to(tl.float32)
        if ADDED == 2:
            scale = tl.load(added_found + 2 * columns + column, mask=within)[None, :]
            shift = tl.load(added_found + 3 * columns + column, mask=within)[None, :]
            carried = carried * scale + shift
        value += carried
        # Keep where the ReLU passes: eight channels a byte.
        octets = octets_of(value > 0)
        octet = left // 8 + tl.arange(0, COLUMNS // 8)
        octet_places = start // 8 + row[:, None] * (columns // 8) + octet[None, :]
        tl.store(bits + octet_places, octets, mask=inside & (octet * 8 < columns)[None, :])
    tl.store(y + start + places, tl.where(value < 0, 0.0, value), mask=mask)


@jit(do_not_specialize=COUNTS)
def sum_gradients(
    dy, other, bits, z, found, projected, projected_found, gradient, sums, rows, columns, height, width,
    PASSED: tl.constexpr, EVERY: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Over one part of the rows: sums of the gradient g = (dy [+ other]) where the ReLU has passed, and g * (z - mean).

    Where they are given, g is written to `gradient`, and the third sum is that of g * (projected - its mean). The maps
    dy and other and the bits are those of every EVERY-th position; the gradient of the others is 0.
    """
    part, parts = tl.program_id(1), tl.num_programs(1)
    left = tl.program_id(0) * COLUMNS
    column = left + tl.arange(0, COLUMNS)
    within = column < columns
    mean = tl.load(found + column, mask=within)[None, :]
    scale = tl.load(found + 2 * columns + column, mask=within)[None, :]
    shift = tl.load(found + 3 * columns + column, mask=within)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    if projected is not None:
        projected_mean = tl.load(projected_found + column, mask=within)[None, :]
        projected_product = tl.zeros((ROWS, COLUMNS), tl.float32)
    each = tl.cdiv(tl.cdiv(rows, parts), ROWS) * ROWS
    for step in range(0, each, ROWS):
        first = part * each + step
        row = tl.arange(0, ROWS)
        inside = (row < rows - first)[:, None]
        mask = inside & within[None, :]
        start = first.to(tl.int64) * columns
        places = row[:, None] * columns + column[None, :]
        # The gradient of the ReLU's argument.
        given, source, octets, at = mask, start + places, bits, row
        if EVERY > 1:
            h, w, image = (first + row) // width % height, (first + row) % width, (first + row) // (width * height)
            inside = inside & ((h % EVERY == 0) & (w % EVERY == 0))[:, None]
            given = inside & within[None, :]
            at = (image * tl.cdiv(height, EVERY) + h // EVERY) * tl.cdiv(width, EVERY) + w // EVERY
            source = at.to(tl.int64)[:, None] * columns + column[None, :]
        elif PASSED == BITS:
            octets = bits + start // 8
        value = tl.load(z + start + places, mask=given, other=0).to(tl.float32)
        g = tl.load(dy + source, mask=given, other=0).to(tl.float32)
        if other is not None:
            g += tl.load(other + source, mask=given, other=0).to(tl.float32)
        if PASSED == SIGN:
            g = tl.where(value * scale + shift > 0, g, 0)
        if PASSED == BITS:
            g = tl.where(passed_by_bits(octets, at, left, columns, inside, ROWS, COLUMNS), g, 0)
        if gradient is not None:
            tl.store(gradient + start + places, g, mask=mask)
        # Its sums.
        total += g
        product += g * (value - mean)
        if projected is not None:
            value = tl.load(projected + start + places, mask=given, other=0).to(tl.float32)
            projected_product += g * (value - projected_mean)
    kinds: tl.constexpr = 2 if projected is None else 3
    out = sums + part * kinds * columns + column
    tl.store(out, tl.sum(total, 0), mask=within)
    tl.store(out + columns, tl.sum(product, 0), mask=within)
    if projected is not None:
        tl.store(out + 2 * columns, tl.sum(projected_product, 0), mask=within)


@jit(do_not_specialize=COUNTS)
def finish_slope(
    sums, weight, found, line, dweight, dbias, parts, kinds, place, rows, columns,
    PARTS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`line`, so that dz = line[0] * g - line[1] - line[2] * (z - mean), and the gradients of BN's weight and bias."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    within = column < columns
    total, product = sum_parts(sums, place, kinds, parts, column, columns, PARTS, COLUMNS)
    total, product = total.to(tl.float32), product.to(tl.float32)
    inverse = tl.load(found + columns + column, mask=within)
    tl.store(dbias + column, total, mask=within)
    tl.store(dweight + column, product * inverse, mask=within)
    factor = tl.load(weight + column, mask=within) * inverse
    tl.store(line + column, factor, mask=within)
    tl.store(line + columns + column, factor * total / rows, mask=within)
    tl.store(line + 2 * columns + column, factor * inverse * inverse * product / rows, mask=within)


@jit(do_not_specialize=COUNTS)
def differentiate(
    dy, z, found, line, dz, rows, columns, PASSED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """dz = line[0] * g - line[1] - line[2] * (z - mean) with g = dy, or dy where the ReLU has passed."""
    across = tl.cdiv(columns, COLUMNS)
    first = tl.program_id(0) // across * ROWS
    row, column = tl.arange(0, ROWS), tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    within = column < columns
    mask = (row < rows - first)[:, None] & within[None, :]
    start = first.to(tl.int64) * columns
    places = row[:, None] * columns + column[None, :]
    value = tl.load(z + start + places, mask=mask).to(tl.float32)
    g = tl.load(dy + start + places, mask=mask).to(tl.float32)
    if PASSED == SIGN:
        scale = tl.load(found + 2 * columns + column, mask=within)[None, :]
        shift = tl.load(found + 3 * columns + column, mask=within)[None, :]
        g = tl.where(value * scale + shift > 0, g, 0)
    mean = tl.load(found + column, mask=within)[None, :]
    factor = tl.load(line + column, mask=within)[None, :]
    offset = tl.load(line + columns + column, mask=within)[None, :]
    pull = tl.load(line + 2 * columns + column, mask=within)[None, :]
    tl.store(dz + start + places, g * factor - offset - (value - mean) * pull, mask=mask)
