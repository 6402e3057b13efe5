"""Entries of one feature that read the same blocks, merged before their touches are sorted.

Frequent tokens occur many times in a batch, and tokens with equal codes read the same blocks. Every
entry that repeats the starts of an earlier one adds its whole vector's gradient to that one's, once
and in order, instead of touching every block again: fewer touches to sort and to sum.

Work is cut into *shards*, up to `SHARD_ROWS` batch rows of one feature, which depend on sizes only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.address_kernel import CHUNKS, DIM, PRIVATE_UNITS
from lma.kernels.cpu.mix import inlined, kernel
from lma.kernels.cpu.prefetch import prefetch
from lma.kernels.cpu.runs import add_vector, copy_vector
from lma.kernels.cpu.touch_kernel import put_touch

SHARD_ROWS = 2048
SLOTS = 2 * SHARD_ROWS  # of a shard's hash table: at most half full
_STEP, _ONE = np.uint64(0x9E3779B97F4A7C15), np.uint64(1)
_TOP = np.uint64(64 - 12)  # the bits of a hash that number `SLOTS` slots
_MASK = np.uint64(SLOTS - 1)
_AHEAD = 8  # rows whose gradients are asked for early
_LINE = 16


@inlined
def row_hash(starts: Any, at: Any, pieces: Any) -> Any:
    """Hash of starts[at : at + pieces], uint64."""
    total, factor = np.uint64(0), _STEP
    for j in range(pieces):
        total += np.uint64(starts[at + np.uint64(j)]) * factor
        # Odd multipliers that do not depend on the sum: the products overlap.
        factor = factor * _STEP
    return total * _STEP


@inlined
def same_row(a: Any, at: Any, b: Any, other: Any, pieces: Any) -> Any:
    """Whether a[at : at + pieces] == b[other : other + pieces]."""
    differ = np.uint64(0)
    for j in range(pieces):
        differ |= np.uint64(a[at + np.uint64(j)]) ^ np.uint64(b[other + np.uint64(j)])
    return differ == np.uint64(0)


@kernel
def merge_rows(
    grad: Any, width: Any, starts: Any, pieces: Any, numbers: Any, columns: Any, rows: Any,
    batch: Any, slots: Any, kept: Any, owners: Any, sources: Any, sums: Any, row: Any, cursor: Any,
    first: Any, last: Any,
) -> Any:  # fmt: skip
    """Merge the entries of shards first ... last - 1; returns how many are left.

    Args:
        grad: float32 [batch * width].
        starts: int32 [batch * features * pieces].
        numbers, columns, rows: As in `lookup_range`.
        slots: Scratch, int32 [SLOTS].
        kept: Starts of what is left, from row `row` on; int32 [entries * pieces].
        owners: Its tables, int32 [entries].
        sources: Where its gradients begin in `sums`, int64 [entries].
        sums: Gradients, from float `cursor` on; float32 [floats of grad].
    """
    features = numbers.shape[0]
    shards = (batch + SHARD_ROWS - 1) // SHARD_ROWS
    begin, place = row, np.uint64(cursor)
    size = np.uint64(pieces)
    for k in range(first, last):
        f = k // shards
        t = np.uint64(numbers[np.uint64(f)])
        dim, column = rows[t, DIM], columns[np.uint64(f)]
        low = (k - f * shards) * SHARD_ROWS
        for i in range(SLOTS):
            slots[np.uint64(i)] = -1
        for r in range(low, min(low + SHARD_ROWS, batch)):
            for line in range(0, dim, _LINE):
                prefetch(grad, (r + _AHEAD) * width + column + line)
            for line in range(0, pieces, _LINE):
                prefetch(starts, ((r + _AHEAD) * features + f) * pieces + line)
            source = np.uint64(r * width + column)
            at = np.uint64(r * features + f) * size
            slot = row_hash(starts, at, pieces) >> _TOP
            while True:
                found = slots[slot]
                if found < 0:
                    slots[slot] = row
                    target = np.uint64(row) * size
                    for j in range(pieces):
                        kept[target + np.uint64(j)] = starts[at + np.uint64(j)]
                    owners[np.uint64(row)] = t
                    sources[np.uint64(row)] = place
                    copy_vector(grad, source, dim, sums, place)
                    place += np.uint64(dim)
                    row += 1
                    break
                if same_row(starts, at, kept, np.uint64(found) * size, pieces):
                    add_vector(grad, source, dim, sums, np.uint64(sources[np.uint64(found)]))
                    break
                slot = (slot + _ONE) & _MASK
    return row - begin


@kernel
def count_merged(
    kept: Any, pieces: Any, owners: Any, rows: Any, lead: Any, shift: Any, counts: Any,
    first: Any, last: Any,
) -> Any:  # fmt: skip
    """Add the touches of merged entries first ... last - 1 to counts, int64 [buckets]."""
    move = np.uint64(shift)
    for e in range(first, last):
        t = np.uint64(owners[np.uint64(e)])
        at = np.uint64(e * pieces)
        for w in range(rows[t, PRIVATE_UNITS]):
            counts[(np.uint64(kept[at]) + np.uint64(w)) >> move] += 1
        at += np.uint64(lead)
        for j in range(rows[t, CHUNKS]):
            counts[np.uint64(kept[at + np.uint64(j)]) >> move] += 1


@kernel
def place_merged(
    kept: Any, pieces: Any, owners: Any, sources: Any, rows: Any, unit: Any, lead: Any, shift: Any,
    cursors: Any, touches: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Write the touches of merged entries first ... last - 1 behind their buckets' cursors."""
    move, step = np.uint64(shift), np.uint64(unit)
    for e in range(first, last):
        t = np.uint64(owners[np.uint64(e)])
        at, source = np.uint64(e * pieces), np.uint64(sources[np.uint64(e)])
        for w in range(rows[t, PRIVATE_UNITS]):
            put_touch(np.uint64(kept[at]) + np.uint64(w), source, move, cursors, touches)
            source += step
        at += np.uint64(lead)
        for j in range(rows[t, CHUNKS]):
            put_touch(np.uint64(kept[at + np.uint64(j)]), source, move, cursors, touches)
            source += step
