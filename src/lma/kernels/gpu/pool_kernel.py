"""Gather, pooling and their gradients on a GPU: one program per slot, lanes over dimensions.

A slot is feature f of batch row r, number r * features + f; see `reference.lookup`.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton evaluates annotations, and knows none but its own.

from __future__ import annotations

import triton
import triton.language as tl

from lma.kernels.gpu.address_kernel import COLUMNS, DIM, PRIVATE_DIM


@triton.jit
def slot_geometry(
    s, offsets, numbers, columns, modes, layout, features,
    batch, chunk, lead, width, BAGS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(place in the output, first and last entry, share, piece, place in the piece, mask)."""
    r = s // features
    f = s - r * features
    row = layout + tl.load(numbers + f) * COLUMNS
    i = tl.arange(0, BLOCK).to(tl.int64)
    mask = i < tl.load(row + DIM)
    private = tl.load(row + PRIVATE_DIM)
    own = i < private
    behind = tl.where(own, 0, i - private)
    piece = tl.where(own, 0, lead + behind // chunk)
    inside = tl.where(own, i, behind % chunk)
    low = s
    high = s + 1
    if BAGS:
        low = tl.load(offsets + f * batch + r)
        high = tl.load(offsets + f * batch + r + 1)
    length = tl.maximum(high - low, 1).to(tl.float32)
    share = tl.where(tl.load(modes + f) == 1, 1.0 / length, 1.0)
    place = r * width + tl.load(columns + f) + i
    return place, low, high, share, piece, inside, mask


@triton.jit
def pool_kernel(
    weight, scales, starts, offsets, factors, numbers, columns, modes,
    layout, out, features, batch, pieces, unit, chunk,
    lead, width, size, group, BAGS: tl.constexpr, FACTORS: tl.constexpr,
    BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[r, columns[f] + i] = share * sum of factors[e] * weight[place(e, i)].

    BITS is 32 for weights in floats; of 8 and 4 bits `group` neighbouring ones share a scale, and
    of 4 bits two share a byte, as in `reference.quantised.Quantised`.
    """
    s = tl.program_id(0).to(tl.int64)
    place, low, high, share, piece, inside, mask = slot_geometry(
        s, offsets, numbers, columns, modes, layout, features, batch, chunk, lead, width, BAGS,
        BLOCK,
    )  # fmt: skip
    total = tl.zeros((BLOCK,), tl.float32)
    for e in range(low, high):
        start = tl.load(starts + e * pieces + piece, mask=mask, other=0).to(tl.int64)
        at = (start * unit + inside) % size
        if BITS == 4:
            byte = tl.load(weight + at // 2, mask=mask, other=0).to(tl.int32)
            value = (((byte >> (at % 2 * 4).to(tl.int32)) & 15) - 8).to(tl.float32)
        else:
            value = tl.load(weight + at, mask=mask, other=0).to(tl.float32)
        if BITS < 32:
            value = value * tl.load(scales + at // group, mask=mask, other=0).to(tl.float32)
        if FACTORS:
            value = value * tl.load(factors + e).to(tl.float32)
        total += value
    tl.store(out + place, (total * share).to(out.dtype.element_ty), mask=mask)


@triton.jit
def scatter_kernel(
    grad, starts, offsets, factors, numbers, columns, modes,
    layout, out, features, batch, pieces, unit, chunk,
    lead, width, size, BAGS: tl.constexpr, FACTORS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Add every slot's gradient to the floats it read; `out` is float32, added to by atomics."""
    s = tl.program_id(0).to(tl.int64)
    place, low, high, share, piece, inside, mask = slot_geometry(
        s, offsets, numbers, columns, modes, layout, features, batch, chunk, lead, width, BAGS,
        BLOCK,
    )  # fmt: skip
    value = tl.load(grad + place, mask=mask, other=0).to(tl.float32) * share
    for e in range(low, high):
        start = tl.load(starts + e * pieces + piece, mask=mask, other=0).to(tl.int64)
        scaled = value
        if FACTORS:
            scaled = value * tl.load(factors + e).to(tl.float32)
        tl.atomic_add(out + (start * unit + inside) % size, scaled, mask=mask)


@triton.jit
def dot_kernel(
    weight, grad, starts, offsets, numbers, columns, layout,
    out, features, batch, pieces, unit, chunk, lead,
    width, size, BAGS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[e] = vector of entry e times its slot's gradient."""
    s = tl.program_id(0).to(tl.int64)
    # The columns stand in for modes: only sums have factors, and the share is not used.
    place, low, high, _, piece, inside, mask = slot_geometry(
        s, offsets, numbers, columns, columns, layout, features, batch, chunk, lead, width, BAGS,
        BLOCK,
    )  # fmt: skip
    slot_grad = tl.load(grad + place, mask=mask, other=0).to(tl.float32)
    for e in range(low, high):
        start = tl.load(starts + e * pieces + piece, mask=mask, other=0).to(tl.int64)
        value = tl.load(weight + (start * unit + inside) % size, mask=mask, other=0)
        product = tl.sum(value.to(tl.float32) * slot_grad)
        tl.store(out + e, product.to(out.dtype.element_ty))
