"""Gather, pooling and their gradients on a GPU: a program takes a tile, slots by dimensions.

A slot is feature f of batch row r, number r * features + f; see `reference.lookup`. DIM is the
dimension of all tables where all have the same and no private part, else 0: then slots follow one
another in the output, and the compiler knows that chunks of several floats can be read at once.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton evaluates annotations, and knows none but its own.

from __future__ import annotations

import triton
import triton.language as tl

from lma.kernels.gpu.address_kernel import COLUMNS, PRIVATE_DIM
from lma.kernels.gpu.address_kernel import DIM as DIM_COLUMN


@triton.jit
def tile_geometry(
    slots, offsets, numbers, columns, modes, layout, features, lead, width, CHUNK: tl.constexpr,
    DIM: tl.constexpr, BAGS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(place in the output, first and last entry, share, piece, place in the piece, mask).

    Of entries and share [ROWS], of the others [ROWS, BLOCK] or what broadcasts to it.
    """
    s = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    some = s < slots
    i = tl.arange(0, BLOCK)[None, :]
    r = s // features
    f = s - r * features
    if DIM > 0:
        place = s[:, None] * DIM + i
        mask = some[:, None] & (i < DIM)
        piece = i // CHUNK
        inside = i % CHUNK
    else:
        row = layout + tl.load(numbers + f, mask=some, other=0) * COLUMNS
        private = tl.load(row + PRIVATE_DIM, mask=some, other=0)[:, None]
        mask = some[:, None] & (i < tl.load(row + DIM_COLUMN, mask=some, other=0)[:, None])
        own = i < private
        behind = tl.where(own, 0, i - private)
        piece = tl.where(own, 0, lead + behind // CHUNK)
        inside = tl.where(own, i, behind % CHUNK)
        place = (r * width + tl.load(columns + f, mask=some, other=0))[:, None] + i
    low = s
    high = s + some.to(tl.int64)
    share = tl.full((ROWS,), 1.0, tl.float32)
    if BAGS:
        bag = f * (slots // features) + r
        low = tl.load(offsets + bag, mask=some, other=0)
        high = tl.load(offsets + bag + 1, mask=some, other=0)
        length = tl.maximum(high - low, 1).to(tl.float32)
        share = tl.where(tl.load(modes + f, mask=some, other=0) == 1, 1.0 / length, 1.0)
    return place, low, high, share, piece, inside, mask


@triton.jit
def places(
    starts, e, piece, inside, mask, pieces, size, UNIT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Floats of the flat memory under entries e, int64."""
    start = tl.load(starts + e[:, None] * pieces + piece, mask=mask, other=0)
    at = start.to(tl.int64) * UNIT + inside
    if CHUNK > UNIT:
        # Runs that overlap go on at 0 behind the memory's end.
        at = at % size
    return at


@triton.jit
def read(weight, scales, at, mask, group, BITS: tl.constexpr):
    """Floats of the memory, float32; BITS as in `pool_kernel`."""
    if BITS == 4:
        byte = tl.load(weight + at // 2, mask=mask, other=0).to(tl.int32)
        value = (((byte >> (at % 2 * 4).to(tl.int32)) & 15) - 8).to(tl.float32)
    else:
        value = tl.load(weight + at, mask=mask, other=0).to(tl.float32)
    if BITS < 32:
        value = value * tl.load(scales + at // group, mask=mask, other=0).to(tl.float32)
    return value


@triton.jit(do_not_specialize=["slots"])
def pool_kernel(
    weight, scales, starts, offsets, factors, numbers, columns, modes,
    layout, out, slots, features, pieces, lead, width, size, group,
    UNIT: tl.constexpr, CHUNK: tl.constexpr, DIM: tl.constexpr, BAGS: tl.constexpr,
    FACTORS: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[r, columns[f] + i] = share * sum of factors[e] * weight[place(e, i)].

    BITS is 32 for weights in floats; of 8 and 4 bits `group` neighbouring ones share a scale, and
    of 4 bits two share a byte, as in `reference.quantised.Quantised`.
    """
    place, low, high, share, piece, inside, mask = tile_geometry(
        slots, offsets, numbers, columns, modes, layout, features, lead, width, CHUNK, DIM, BAGS,
        ROWS, BLOCK,
    )  # fmt: skip
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    longest = 1
    if BAGS:
        longest = tl.max(high - low, 0)
    for k in range(longest):
        e = low + k
        some = e < high
        here = mask & some[:, None]
        at = places(starts, e, piece, inside, here, pieces, size, UNIT, CHUNK)
        value = read(weight, scales, at, here, group, BITS)
        if FACTORS:
            value = value * tl.load(factors + e, mask=some, other=0).to(tl.float32)[:, None]
        total += value
    total = total * share[:, None]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["slots"])
def scatter_kernel(
    grad, starts, offsets, factors, numbers, columns, modes,
    layout, out, slots, features, pieces, lead, width, size,
    UNIT: tl.constexpr, CHUNK: tl.constexpr, DIM: tl.constexpr, BAGS: tl.constexpr,
    FACTORS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add every slot's gradient to the floats it read; `out` is float32, added to by atomics."""
    place, low, high, share, piece, inside, mask = tile_geometry(
        slots, offsets, numbers, columns, modes, layout, features, lead, width, CHUNK, DIM, BAGS,
        ROWS, BLOCK,
    )  # fmt: skip
    value = tl.load(grad + place, mask=mask, other=0).to(tl.float32) * share[:, None]
    longest = 1
    if BAGS:
        longest = tl.max(high - low, 0)
    for k in range(longest):
        e = low + k
        some = e < high
        here = mask & some[:, None]
        at = places(starts, e, piece, inside, here, pieces, size, UNIT, CHUNK)
        scaled = value
        if FACTORS:
            scaled = value * tl.load(factors + e, mask=some, other=0).to(tl.float32)[:, None]
        tl.atomic_add(out + at, scaled, mask=here, sem="relaxed")


@triton.jit(do_not_specialize=["slots"])
def dot_kernel(
    weight, grad, starts, offsets, numbers, columns, layout,
    out, slots, features, pieces, lead, width, size,
    UNIT: tl.constexpr, CHUNK: tl.constexpr, DIM: tl.constexpr, BAGS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[e] = vector of entry e times its slot's gradient."""
    # The columns stand in for modes: only sums have factors, and the share is not used.
    place, low, high, _, piece, inside, mask = tile_geometry(
        slots, offsets, numbers, columns, columns, layout, features, lead, width, CHUNK, DIM, BAGS,
        ROWS, BLOCK,
    )  # fmt: skip
    slot_grad = tl.load(grad + place, mask=mask, other=0).to(tl.float32)
    longest = 1
    if BAGS:
        longest = tl.max(high - low, 0)
    for k in range(longest):
        e = low + k
        some = e < high
        here = mask & some[:, None]
        at = places(starts, e, piece, inside, here, pieces, size, UNIT, CHUNK)
        value = tl.load(weight + at, mask=here, other=0).to(tl.float32)
        product = tl.sum(value * slot_grad, 1)
        tl.store(out + e, product.to(out.dtype.element_ty), mask=some)
