"""The dense gradient on a GPU without atomics: touches sorted by block, summed in order.

A *touch* is one row of the memory under one entry's vector: piece p, unit u of it. Touches of a row
stand in the order of entries, so the sum has the same bits every time.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton evaluates annotations, and knows none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lma.kernels.gpu.address_kernel import COLUMNS, DIM, PRIVATE_DIM
from lma.kernels.layout import Column
from lma.kernels.reference.pooling import bag_numbers


@triton.jit
def segment_kernel(
    grad, touches, bounds, slots, lengths, factors, numbers, columns,
    modes, layout, out, features, pieces, depth, unit, chunk, lead, width,
    FACTORS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Row s of `out` is the sum over touches bounds[s] ... bounds[s + 1] - 1."""
    s = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    for at in range(tl.load(bounds + s), tl.load(bounds + s + 1)):
        touch = tl.load(touches + at)
        e = touch // (pieces * depth)
        piece = touch // depth - e * pieces
        inside = (touch % depth) * unit + lane
        slot = tl.load(slots + e)
        f = slot % features
        row = layout + tl.load(numbers + f) * COLUMNS
        private = tl.load(row + PRIVATE_DIM)
        own = piece < lead
        behind = tl.where(own, inside, private + (piece - lead) * chunk + inside)
        room = tl.where(
            own, private, tl.minimum(chunk, tl.load(row + DIM) - private - (piece - lead) * chunk)
        )
        mask = (lane < unit) & (inside < room)
        place = slot // features * width + tl.load(columns + f) + behind
        value = tl.load(grad + place, mask=mask, other=0).to(tl.float32)
        if FACTORS:
            value = value * tl.load(factors + e).to(tl.float32)
        length = tl.load(lengths + e).to(tl.float32)
        total += value * tl.where(tl.load(modes + f) == 1, 1.0 / length, 1.0)
    tl.store(out + s * unit + lane, total, mask=lane < unit)


def sorted_grad(
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
) -> tuple[Tensor, Tensor]:
    """`reference.touched_grad` in float32: (rows ascending, their gradients)."""
    features, (total, pieces) = len(numbers), starts.shape
    device = starts.device
    if offsets is None:
        slots = torch.arange(total, device=device)
        lengths = torch.ones_like(slots)
    else:
        bags = bag_numbers(offsets, total)
        batch = max(1, len(grad))
        slots = bags % batch * features + bags // batch
        lengths = offsets.diff()[bags]
    row = layout[numbers[slots % features]]
    private = row[:, Column.PRIVATE_DIM].unsqueeze(1)
    piece = torch.arange(pieces, device=device)
    floats = (row[:, Column.DIM].unsqueeze(1) - private - (piece - lead) * chunk).clamp(0, chunk)
    floats = torch.where(piece < lead, private, floats)
    depth = -(-max(chunk, int(layout[:, Column.PRIVATE_DIM].max())) // block_size)
    step = torch.arange(depth, device=device)
    used = (step * block_size < floats.unsqueeze(2)).reshape(-1)
    touched = (starts.long().unsqueeze(2) + step).reshape(-1) % max(1, num_blocks)
    (touches,) = used.nonzero(as_tuple=True)
    ascending, order = touched[touches].sort(stable=True)
    rows, counts = torch.unique_consecutive(ascending, return_counts=True)
    out = torch.zeros(len(rows), block_size, dtype=torch.float32, device=device)
    if len(rows):
        bounds = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        segment_kernel[(len(rows),)](
            grad.contiguous(), touches[order], bounds,
            slots, lengths, grad if factors is None else factors, numbers, columns, modes, layout,
            out, features, pieces, depth, block_size, chunk, lead, grad.shape[1],
            FACTORS=factors is not None, BLOCK=triton.next_power_of_2(block_size),
        )  # fmt: skip
    return rows, out
