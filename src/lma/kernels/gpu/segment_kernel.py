"""Gradients of touched blocks on a GPU without atomics: touches sorted by block, added up in parts.

A *touch* is one row of the memory under one entry's vector: piece p, unit u of it. Touches of a row
stand in the order of entries, and are added up in parts of `PART` whose sums are added up in turn:
the same bits every time, and no row, however often it is read, waits for one program.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton evaluates annotations, and knows none but its own.

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lma.kernels.gpu.address_kernel import COLUMNS, DIM, PRIVATE_DIM
from lma.kernels.gpu.facts import facts
from lma.kernels.layout import Column
from lma.kernels.reference.pooling import bag_numbers

PART = 32  # touches
SEGMENTS = 64  # at most, of one program
FLOATS = 1024  # of one program's tile


@triton.jit(do_not_specialize=["parts"])
def segment_kernel(
    grad, touches, begins, ends, slots, lengths, factors, numbers, columns,
    modes, layout, out, parts, features, pieces, depth, lead, width,
    UNIT: tl.constexpr, CHUNK: tl.constexpr, ALIKE: tl.constexpr, BAGS: tl.constexpr,
    FACTORS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Row s of `out` is the sum over touches begins[s] ... ends[s] - 1, in their order.

    ALIKE: every piece of every slot is one row of the memory, so that a touch's number says where
    its gradient stands.
    """
    s = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    known = s < parts
    lane = tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    begin = tl.load(begins + s, mask=known, other=0)
    end = tl.load(ends + s, mask=known, other=0)
    for k in range(tl.max(tl.max(end - begin, 1), 0)):
        at = begin + k
        some = at < end
        touch = tl.load(touches + at, mask=some, other=0)
        e = touch // (pieces * depth)
        if ALIKE:
            mask = some & (lane < UNIT)
            place = touch * UNIT + lane
        else:
            piece = touch // depth - e * pieces
            inside = (touch % depth) * UNIT + lane
            slot = e
            if BAGS:
                slot = tl.load(slots + e, mask=some, other=0)
            f = slot % features
            row = layout + tl.load(numbers + f, mask=some, other=0) * COLUMNS
            private = tl.load(row + PRIVATE_DIM, mask=some, other=0)
            dim = tl.load(row + DIM, mask=some, other=0)
            own = piece < lead
            before = tl.where(own, 0, private + (piece - lead) * CHUNK)
            room = tl.where(own, private, tl.minimum(CHUNK, dim - before))
            mask = some & (lane < UNIT) & (inside < room)
            column = tl.load(columns + f, mask=some, other=0)
            place = slot // features * width + column + before + inside
        value = tl.load(grad + place, mask=mask, other=0).to(tl.float32)
        if FACTORS:
            value = value * tl.load(factors + e, mask=some, other=0).to(tl.float32)
        if BAGS:
            length = tl.load(lengths + e, mask=some, other=1).to(tl.float32)
            mean = tl.load(modes + f, mask=some, other=0) == 1
            value = value * tl.where(mean, 1.0 / length, 1.0)
        total += value
    tl.store(out + s * UNIT + lane, total, mask=known & (lane < UNIT))


@triton.jit
def fold_kernel(
    sums, rows, bounds,
    UNIT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The first part of row rows[s] becomes the sum of all its parts, bounds[row] and on."""
    row = tl.load(rows + tl.program_id(0))
    lane = tl.arange(0, BLOCK)[None, :]
    begin = tl.load(bounds + row)
    end = tl.load(bounds + row + 1)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(begin, end, ROWS):
        at = first + tl.arange(0, ROWS)[:, None]
        total += tl.load(sums + at * UNIT + lane, mask=(at < end) & (lane < UNIT), other=0)
    tl.store(sums + begin * UNIT + lane, tl.sum(total, 0)[None, :], mask=lane < UNIT)


class Sums(NamedTuple):
    """Gradients of touched rows.

    Attributes:
        rows: Of the memory, ascending, int64 [touched].
        values: float32 [parts, block_size].
        first: Where in `values` the gradient of every row stands, [touched]; None: in order.
    """

    rows: Tensor
    values: Tensor
    first: Tensor | None

    def gathered(self) -> tuple[Tensor, Tensor]:
        """(rows, their gradients in order)."""
        return self.rows, self.values if self.first is None else self.values[self.first]


def sorted_sums(
    grad: Tensor,
    starts: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    num_blocks: int,
    block_size: int,
) -> Sums:
    """`reference.touched_grad` in float32."""
    features, (total, pieces) = len(numbers), starts.shape
    device = starts.device
    slots = lengths = starts
    if offsets is not None:
        bags = bag_numbers(offsets, total)
        batch = max(1, len(grad))
        slots = bags % batch * features + bags // batch
        lengths = offsets.diff()[bags]
    known = facts(layout)
    depth = -(-max(chunk, known.private) // block_size)
    touched = starts.reshape(-1)
    if depth > 1 or chunk > block_size:
        # A run may begin at the last row that 32 bits can number.
        wide = torch.int32 if num_blocks + depth < 1 << 31 else torch.int64
        step = torch.arange(depth, dtype=wide, device=device)
        touched = (starts.unsqueeze(2) + step).reshape(-1) % max(1, num_blocks)
    alike = known.dim > 0 and known.dim % chunk == 0 and chunk == depth * block_size
    if alike:
        # Every piece of every entry touches as many rows.
        ascending, order = touched.sort(stable=True)
    else:
        own_slots = None if offsets is None else slots
        touches = _used(starts, own_slots, numbers, layout, chunk, lead, depth, block_size)
        ascending, order = touched[touches].sort(stable=True)
        order = touches[order]
    rows, counts = torch.unique_consecutive(ascending, return_counts=True)
    if not len(rows):
        return Sums(rows.long(), grad.new_zeros(0, block_size, dtype=torch.float32), None)
    folds = (counts + PART - 1) // PART
    bounds = torch.cat([folds.new_zeros(1), folds.cumsum(0)])
    parts = int(bounds[-1])
    ends = counts.cumsum(0)
    begins = ends - counts
    if parts > len(rows):
        row = torch.repeat_interleave(folds, output_size=parts)
        begins = begins[row] + PART * (torch.arange(parts, device=device) - bounds[row])
        ends = torch.minimum(begins + PART, ends[row])
    block = int(triton.next_power_of_2(block_size))
    own = max(1, min(SEGMENTS, FLOATS // block))
    out = torch.empty(parts, block_size, dtype=torch.float32, device=device)
    segment_kernel[(triton.cdiv(parts, own),)](
        grad.contiguous(), order, begins, ends, slots, lengths,
        grad if factors is None else factors.contiguous(), numbers, columns, modes, layout, out,
        parts, features, pieces, depth, lead, grad.shape[1], UNIT=block_size, CHUNK=chunk,
        ALIKE=alike and depth == 1 and offsets is None, BAGS=offsets is not None,
        FACTORS=factors is not None, ROWS=own, BLOCK=block,
        num_warps=max(1, min(4, own * block // 128)),
    )  # fmt: skip
    if parts == len(rows):
        return Sums(rows.long(), out, None)
    (many,) = (folds > 1).nonzero(as_tuple=True)
    tile = max(1, FLOATS // block)
    fold_kernel[(len(many),)](out, many, bounds, UNIT=block_size, ROWS=tile, BLOCK=block)
    return Sums(rows.long(), out, bounds[:-1])


def _used(
    starts: Tensor,
    slots: Tensor | None,
    numbers: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    depth: int,
    block_size: int,
) -> Tensor:
    """Numbers of the touches that there are, of entries x pieces x depth: int64, ascending."""
    features, (total, pieces) = len(numbers), starts.shape
    row = layout[numbers]
    private = row[:, Column.PRIVATE_DIM].unsqueeze(1)
    piece = torch.arange(pieces, device=starts.device)
    floats = (row[:, Column.DIM].unsqueeze(1) - private - (piece - lead) * chunk).clamp(0, chunk)
    floats = torch.where(piece < lead, private, floats)
    step = torch.arange(depth, device=starts.device)
    used = step * block_size < floats.unsqueeze(2)  # [features, pieces, depth]
    if slots is None:
        used = used.expand(total // features, features, pieces, depth)
    else:
        used = used[slots % features]
    (touches,) = used.reshape(-1).nonzero(as_tuple=True)
    return touches
