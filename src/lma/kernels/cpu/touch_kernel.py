"""Touches sorted into buckets of neighbouring units: the first half of a touched-blocks gradient.

A *touch* is one unit (row of the memory) read by one entry: number w of entry e covers floats
w * unit ... of its vector, because private parts and chunks are whole units. Touches go, in the
order of entries, to the bucket of their unit; a bucket is then added up by one thread, so sums
have one order whatever the number of threads.

A touch is one uint64: where its gradient begins, in the upper half, and its unit in the lower.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.address_kernel import CHUNKS, DIM, PRIVATE_UNITS
from lma.kernels.cpu.gather_kernel import MEAN
from lma.kernels.cpu.mix import inlined, kernel
from lma.kernels.cpu.runs import add_run

_ONE = np.uint64(1)
_HALF, _LOW_HALF = np.uint64(32), np.uint64(0xFFFFFFFF)


@inlined
def unit_of(touch: Any) -> Any:
    """Its unit, uint64."""
    return touch & _LOW_HALF


@inlined
def source_of(touch: Any) -> Any:
    """Where its gradient begins, uint64."""
    return touch >> _HALF


@inlined
def all_alike(numbers: Any, rows: Any, lead: Any, pieces: Any) -> Any:
    """Whether every slot reads the same number of chunks and nothing else."""
    alike = lead == 0
    for f in range(numbers.shape[0]):
        alike = alike and rows[np.uint64(numbers[f]), CHUNKS] == pieces
    return alike


@kernel
def count_rows(
    starts: Any, pieces: Any, numbers: Any, rows: Any, lead: Any, shift: Any, counts: Any,
    first: Any, last: Any,
) -> Any:  # fmt: skip
    """`count_touches` where every slot has one entry, chunks are units and none is cut short.

    Args:
        starts: int32 [entries * pieces].
    """
    features, move = numbers.shape[0], np.uint64(shift)
    if all_alike(numbers, rows, lead, pieces):
        for i in range(first * pieces, last * pieces):
            counts[np.uint64(starts[np.uint64(i)]) >> move] += 1
        return
    f = first % features
    for e in range(first, last):
        t = np.uint64(numbers[np.uint64(f)])
        at = np.uint64(e * pieces)
        for w in range(rows[t, PRIVATE_UNITS]):
            counts[(np.uint64(starts[at]) + np.uint64(w)) >> move] += 1
        at += np.uint64(lead)
        for j in range(rows[t, CHUNKS]):
            counts[np.uint64(starts[at + np.uint64(j)]) >> move] += 1
        f += 1
        if f == features:
            f = 0


@inlined
def put_touch(unit: Any, source: Any, shift: Any, cursors: Any, touches: Any) -> Any:
    """Write a touch behind its bucket's cursor; all uint64. Returns where."""
    bucket = unit >> shift
    at = np.uint64(cursors[bucket])
    cursors[bucket] = at + _ONE
    touches[at] = source << _HALF | unit
    return at


@kernel
def place_rows(
    starts: Any, pieces: Any, numbers: Any, columns: Any, width: Any, rows: Any, unit: Any,
    lead: Any, shift: Any, cursors: Any, touches: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """`place_touches`, in the cases of `count_rows`."""
    features, move, step = numbers.shape[0], np.uint64(shift), np.uint64(unit)
    alike = all_alike(numbers, rows, lead, pieces) and width == features * pieces * unit
    for f in range(features):
        alike = alike and columns[f] == f * pieces * unit
    if alike:
        # Touches follow one another in the gradient as they do here.
        for i in range(first * pieces, last * pieces):
            at = np.uint64(i)
            put_touch(np.uint64(starts[at]), at * step, move, cursors, touches)
        return
    r = first // features
    f = first - r * features
    for e in range(first, last):
        t = np.uint64(numbers[np.uint64(f)])
        source = np.uint64(r * width + columns[np.uint64(f)])
        at = np.uint64(e * pieces)
        for w in range(rows[t, PRIVATE_UNITS]):
            put_touch(np.uint64(starts[at]) + np.uint64(w), source, move, cursors, touches)
            source += step
        at += np.uint64(lead)
        for j in range(rows[t, CHUNKS]):
            put_touch(np.uint64(starts[at + np.uint64(j)]), source, move, cursors, touches)
            source += step
        f += 1
        if f == features:
            f = 0
            r += 1


@kernel
def describe_entries(
    offsets: Any, factors: Any, numbers: Any, columns: Any, modes: Any, rows: Any, width: Any,
    places: Any, scales: Any, tables: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """For the entries of slots first ... last - 1: their gradient's place, its factor, the table.

    Args:
        offsets, factors, numbers, columns, modes, rows: As in `lookup_range`.
        places: Written, int64 [entries]: r * width + columns[f].
        scales: Written, float32 [entries].
        tables: Written, int32 [entries].
    """
    features = numbers.shape[0]
    one_hot = offsets.shape[0] == 0
    weighted = factors.shape[0] > 0
    batch = 0 if one_hot else (offsets.shape[0] - 1) // features
    r = first // features
    f = first - r * features
    for s in range(first, last):
        low, high = s, s + 1
        if not one_hot:
            low, high = offsets[f * batch + r], offsets[f * batch + r + 1]
        share = np.float32(1)
        if modes[f] == MEAN and high > low:
            share = np.float32(1) / np.float32(high - low)
        for e in range(low, high):
            places[e] = r * width + columns[f]
            scales[e] = factors[e] * share if weighted else share
            tables[e] = numbers[f]
        f += 1
        if f == features:
            f = 0
            r += 1


@inlined
def count_touch(u: Any, num_blocks: Any, shift: Any, counts: Any) -> Any:
    """One touch of unit u; runs go on at 0 behind the memory's end."""
    if u >= num_blocks:
        u = u % num_blocks
    counts[np.uint64(u >> shift)] += 1


@kernel
def count_touches(
    starts: Any, tables: Any, rows: Any, unit: Any, chunk: Any, lead: Any, num_blocks: Any,
    shift: Any, counts: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Add the touches of entries first ... last - 1 to counts, int64 [buckets]."""
    chunk_units = max(1, chunk // unit)
    for e in range(first, last):
        t = tables[e]
        for w in range(rows[t, PRIVATE_UNITS]):
            count_touch(np.int64(starts[e, 0]) + w, num_blocks, shift, counts)
        left = (rows[t, DIM] + unit - 1) // unit - rows[t, PRIVATE_UNITS]
        for j in range(rows[t, CHUNKS]):
            start = np.int64(starts[e, lead + j])
            for w in range(min(chunk_units, left)):
                count_touch(start + w, num_blocks, shift, counts)
            left -= chunk_units


@inlined
def place_touch(
    u: Any, num_blocks: Any, shift: Any, source: Any, length: Any, scale: Any, cursors: Any,
    touches: Any, factors: Any, lengths: Any,
) -> Any:  # fmt: skip
    """Write one touch, with its factor and length where such are kept."""
    if u >= num_blocks:
        u = u % num_blocks
    at = put_touch(np.uint64(u), np.uint64(source), np.uint64(shift), cursors, touches)
    if factors.shape[0] > 0:
        factors[at] = scale
    if lengths.shape[0] > 0:
        lengths[at] = length


@kernel
def place_touches(
    starts: Any, tables: Any, rows: Any, unit: Any, chunk: Any, lead: Any, num_blocks: Any,
    shift: Any, places: Any, scales: Any, cursors: Any, touches: Any, factors: Any, lengths: Any,
    first: Any, last: Any,
) -> Any:  # fmt: skip
    """Write the touches of entries first ... last - 1 behind their buckets' cursors.

    Args:
        places, scales, tables: Of `describe_entries`.
        cursors: int64 [buckets], moved on.
        touches: Written, uint64 [touches].
        factors: Written, float32 [touches], or empty: all are 1.
        lengths: Written, int32 [touches]: floats of the touch; or empty: all are whole units.
    """
    chunk_units = max(1, chunk // unit)
    for e in range(first, last):
        t = tables[e]
        scale = scales[e]
        source = places[e]
        stop = source + rows[t, DIM]
        for w in range(rows[t, PRIVATE_UNITS]):
            place_touch(
                np.int64(starts[e, 0]) + w, num_blocks, shift, source, min(unit, stop - source),
                scale, cursors, touches, factors, lengths,
            )  # fmt: skip
            source += unit
        left = (rows[t, DIM] + unit - 1) // unit - rows[t, PRIVATE_UNITS]
        for j in range(rows[t, CHUNKS]):
            start = np.int64(starts[e, lead + j])
            for w in range(min(chunk_units, left)):
                place_touch(
                    start + w, num_blocks, shift, source, min(unit, stop - source), scale,
                    cursors, touches, factors, lengths,
                )  # fmt: skip
                source += unit
            left -= chunk_units


@inlined
def add_touch(
    grad: Any, unit: Any, touches: Any, factors: Any, lengths: Any, at: Any, values: Any, row: Any
) -> Any:  # fmt: skip
    """Add the gradient of touch `at` to row `row` of `values`, float32 [rows * unit]."""
    factor = factors[at] if factors.shape[0] > 0 else np.float32(1)
    count = np.int64(lengths[at]) if lengths.shape[0] > 0 else unit
    add_run(factor, grad, np.int64(source_of(touches[at])), count, values, row * unit)


@kernel
def count_distinct(
    touches: Any, bounds: Any, shift: Any, seen: Any, distinct: Any, first: Any, last: Any
) -> Any:  # fmt: skip
    """distinct[b] = different units of buckets first ... last - 1.

    Args:
        bounds: Where buckets begin among the touches, int64 [buckets + 1].
        seen: Scratch, int32 [1 << shift], -1 everywhere before and after.
    """
    for b in range(first, last):
        base = b << shift
        total = 0
        for at in range(bounds[b], bounds[b + 1]):
            local = np.int64(unit_of(touches[at])) - base
            if seen[local] < 0:
                seen[local] = 0
                total += 1
        for at in range(bounds[b], bounds[b + 1]):
            seen[np.int64(unit_of(touches[at])) - base] = -1
        distinct[b] = total


@kernel
def sum_buckets(
    grad: Any, unit: Any, touches: Any, factors: Any, lengths: Any, bounds: Any, shift: Any,
    seen: Any, ends: Any, indices: Any, values: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Touched units of buckets first ... last - 1, ascending, and their summed gradients.

    Args:
        ends: First output row of every bucket, int64 [buckets].
        indices: Written, int64 [distinct].
        values: Written, float32 [distinct * unit].
    """
    for b in range(first, last):
        base = b << shift
        if bounds[b] == bounds[b + 1]:
            continue
        for at in range(bounds[b], bounds[b + 1]):
            seen[np.int64(unit_of(touches[at])) - base] = 0
        row = ends[b]
        for local in range(seen.shape[0]):
            if seen[local] == 0:
                seen[local] = row
                indices[row] = base + local
                for i in range(row * unit, row * unit + unit):
                    values[i] = 0
                row += 1
        for at in range(bounds[b], bounds[b + 1]):
            row = np.int64(seen[np.int64(unit_of(touches[at])) - base])
            add_touch(grad, unit, touches, factors, lengths, at, values, row)
        for at in range(bounds[b], bounds[b + 1]):
            seen[np.int64(unit_of(touches[at])) - base] = -1
