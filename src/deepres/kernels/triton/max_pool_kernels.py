"""The Triton kernels of `stem`: BN, ReLU and the 3x3 max pool of stride 2, on channels-last maps."""

# pyright: basic, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false, reportAssignmentType=false

from typing import Any

import triton
import triton.language as tl

jit: Any = triton.jit  # a kernel's launch takes a grid, and ints for its constants


@jit
def normalise_pool(
    z, found, y, chosen, count, height, width, high, wide, padding, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """y (count, high, wide, C): the maximum of ReLU(scale * z + shift) in each window; `chosen`: its place in it."""
    across = tl.cdiv(columns, COLUMNS)
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    within, inside = (column < columns)[None, :], row < count * high * wide
    image = row // (high * wide)
    top, left = row // wide % high * 2 - padding, row % wide * 2 - padding
    scale = tl.load(found + 2 * columns + column, mask=column < columns)[None, :]
    shift = tl.load(found + 3 * columns + column, mask=column < columns)[None, :]
    best = tl.full((ROWS, COLUMNS), -1.0, tl.float32)
    where = tl.zeros((ROWS, COLUMNS), tl.int32)
    for place in tl.static_range(9):
        h, w = top + place // 3, left + place % 3
        there = inside & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        start = ((image * height + h) * width + w).to(tl.int64) * columns
        value = tl.load(z + start[:, None] + column[None, :], mask=there[:, None] & within, other=0).to(tl.float32)
        value = value * scale + shift
        value = tl.where(value < 0, 0.0, value)
        larger = there[:, None] & ((value > best) | (value != value))  # the first of equals; what is no number stays
        best = tl.where(larger, value, best)
        where = tl.where(larger, place, where)
    places = row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(y + places, best, mask=inside[:, None] & within)
    tl.store(chosen + places, where.to(tl.uint8), mask=inside[:, None] & within)


@jit
def pool_gradient(dy, chosen, row, inside, column, within, height, width, high, wide, padding, columns):
    """The gradient of the positions `row` of the map before the pool: of the windows that have chosen them."""
    image = row // (height * width)
    h, w = row // width % height + padding, row % width + padding
    g = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
    for number in tl.static_range(4):
        # A position lies in two windows each way where its place in the later one is 0, else in one.
        i, j = h // 2 - number // 2, w // 2 - number % 2
        y, x = h - 2 * i, w - 2 * j
        there = inside & (i >= 0) & (i < high) & (y < 3) & (j >= 0) & (j < wide) & (x < 3)
        start = ((image * high + i) * wide + j).to(tl.int64) * columns
        mask = there[:, None] & within
        where = tl.load(chosen + start[:, None] + column[None, :], mask=mask, other=255)
        part = tl.load(dy + start[:, None] + column[None, :], mask=mask, other=0).to(tl.float32)
        g += tl.where(where.to(tl.int32) == (y * 3 + x)[:, None], part, 0.0)
    return g


@jit
def sum_gradients(
    dy, chosen, z, found, sums, count, height, width, high, wide, padding, columns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Over one part of the rows of z: sums of the gradient g of ReLU's argument, and of g * (z - mean)."""
    part, parts = tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    within = (column < columns)[None, :]
    mean = tl.load(found + column, mask=column < columns)[None, :]
    scale = tl.load(found + 2 * columns + column, mask=column < columns)[None, :]
    shift = tl.load(found + 3 * columns + column, mask=column < columns)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    rows = count * height * width
    each = tl.cdiv(tl.cdiv(rows, parts), ROWS) * ROWS
    for step in range(0, each, ROWS):
        row = part * each + step + tl.arange(0, ROWS)
        inside = row < rows
        g = pool_gradient(dy, chosen, row, inside, column, within, height, width, high, wide, padding, columns)
        places = row.to(tl.int64)[:, None] * columns + column[None, :]
        value = tl.load(z + places, mask=inside[:, None] & within, other=0).to(tl.float32)
        g = tl.where(value * scale + shift > 0, g, 0.0)
        total += g
        product += g * (value - mean)
    out = sums + part * 2 * columns + column
    tl.store(out, tl.sum(total, 0), mask=column < columns)
    tl.store(out + columns, tl.sum(product, 0), mask=column < columns)


@jit
def differentiate(
    dy, chosen, z, found, line, dz, count, height, width, high, wide, padding, columns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """dz = line[0] * g - line[1] - line[2] * (z - mean), with g as in `sum_gradients`."""
    across = tl.cdiv(columns, COLUMNS)
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    within, inside = (column < columns)[None, :], row < count * height * width
    mean = tl.load(found + column, mask=column < columns)[None, :]
    scale = tl.load(found + 2 * columns + column, mask=column < columns)[None, :]
    shift = tl.load(found + 3 * columns + column, mask=column < columns)[None, :]
    factor = tl.load(line + column, mask=column < columns)[None, :]
    offset = tl.load(line + columns + column, mask=column < columns)[None, :]
    pull = tl.load(line + 2 * columns + column, mask=column < columns)[None, :]
    g = pool_gradient(dy, chosen, row, inside, column, within, height, width, high, wide, padding, columns)
    places = row.to(tl.int64)[:, None] * columns + column[None, :]
    value = tl.load(z + places, mask=inside[:, None] & within, other=0).to(tl.float32)
    g = tl.where(value * scale + shift > 0, g, 0.0)
    tl.store(dz + places, g * factor - offset - (value - mean) * pull, mask=inside[:, None] & within)
