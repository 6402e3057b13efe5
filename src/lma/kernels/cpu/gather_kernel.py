"""The fused lookup's forward: starts, gather and pooling, slot after slot.

A *slot* is one vector of the output: feature f of batch row r, number r * features + f. Its bag
is one entry (`offsets` empty), or entries offsets[f * batch + r] up to the next offset.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.address_kernel import CHUNKS, DIM, PRIVATE_DIM, ask_signatures, tile_starts
from lma.kernels.cpu.mix import inlined, kernel
from lma.kernels.cpu.runs import add_run, copy_inside, copy_run, copy_vector
from lma.kernels.cpu.twin_kernel import find_twins

CACHED = 1 << 15  # floats that stay in a core's cache without being asked for
MEAN = 1


@inlined
def copy_chunks(
    weight: Any, starts: Any, row: Any, step: Any, count: Any, lead: Any, chunks: Any, chunk: Any,
    unit: Any, out: Any, place: Any, width: Any, twins: Any, twin: Any, column: Any,
) -> Any:  # fmt: skip
    """`count` vectors of whole chunks that never reach over the memory's end."""
    twinned = twins.shape[0] > 0
    for _ in range(count):
        target = place
        if twinned:
            other = twins[twin]
            twin += step
            if other >= 0:
                source = np.uint64(other) * width + column
                copy_vector(out, source, chunks * chunk, out, place)
                row += step
                place += width
                continue
        for j in range(chunks):
            start = np.uint64(starts[row, lead + np.uint64(j)]) * np.uint64(unit)
            copy_inside(weight, start, chunk, out, target)
            target += np.uint64(chunk)
        row += step
        place += width


@kernel
def copy_tile(
    weight: Any, starts: Any, shift: Any, factors: Any, numbers: Any, columns: Any, rows: Any,
    unit: Any, chunk: Any, lead: Any, out: Any, width: Any, twins: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Slots of one entry each: slot s reads row s - shift of `starts`, or copies its twin."""
    features = numbers.shape[0]
    step = np.uint64(features)
    for s in range(first, min(first + features, last)):
        f = s % features
        t = np.uint64(numbers[np.uint64(f)])
        count = (last - s + features - 1) // features
        begin = s // features * width + columns[np.uint64(f)]
        dim, private, chunks = rows[t, DIM], rows[t, PRIVATE_DIM], rows[t, CHUNKS]
        row, place = np.uint64(s - shift), np.uint64(begin)
        whole = private == 0 and chunk == unit and dim == chunks * chunk
        fixed = np.uint64(lead), chunks
        own = np.uint64(columns[np.uint64(f)])
        wide = np.uint64(width), twins, np.uint64(s - first), own
        if whole and chunk == 1:
            copy_chunks(weight, starts, row, step, count, *fixed, 1, 1, out, place, *wide)
        elif whole and chunk == 4:
            copy_chunks(weight, starts, row, step, count, *fixed, 4, 4, out, place, *wide)
        elif whole and chunk == 8:
            copy_chunks(weight, starts, row, step, count, *fixed, 8, 8, out, place, *wide)
        elif whole and chunk == 16:
            copy_chunks(weight, starts, row, step, count, *fixed, 16, 16, out, place, *wide)
        else:
            for i in range(count):
                target, stop = begin + i * width, begin + i * width + dim
                if twins.shape[0] > 0:
                    other = twins[np.uint64(s - first + i * features)]
                    if other >= 0:
                        source = np.uint64(other) * np.uint64(width) + own
                        copy_vector(out, source, dim, out, np.uint64(target))
                        row += step
                        continue
                if private > 0:
                    copy_run(weight, np.int64(starts[row, 0]) * unit, private, out, target)
                    target += private
                for j in range(chunks):
                    start = np.int64(starts[row, np.uint64(lead + j)]) * unit
                    copy_run(weight, start, min(chunk, stop - target), out, target)
                    target += chunk
                row += step
        if factors.shape[0] > 0:
            for i in range(count):
                factor = factors[np.uint64(s + i * features)]
                for k in range(dim):
                    out[np.uint64(begin + i * width + k)] *= factor


@kernel
def add_tile(
    weight: Any, starts: Any, shift: Any, factors: Any, t: Any, begin: Any, rows: Any, unit: Any,
    chunk: Any, lead: Any, out: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Add entries first ... last - 1 of one bag of table t to the slot at out[begin]."""
    weighted = factors.shape[0] > 0
    private = rows[t, PRIVATE_DIM]
    chunks = rows[t, CHUNKS]
    stop = begin + rows[t, DIM]
    for e in range(first, last):
        factor = factors[e] if weighted else np.float32(1)
        place = begin
        if private > 0:
            start = np.int64(starts[e - shift, 0]) * unit
            add_run(factor, weight, start, private, out, place)
            place += private
        for j in range(chunks):
            start = np.int64(starts[e - shift, lead + j]) * unit
            add_run(factor, weight, start, min(chunk, stop - place), out, place)
            place += chunk


@kernel
def lookup_range(
    weight: Any, ids: Any, offsets: Any, factors: Any, numbers: Any, columns: Any, modes: Any,
    rows: Any, seeds: Any, states: Any, draws: Any, codes: Any, fingerprints: Any, overflow: Any,
    unit: Any, chunk: Any, stride: Any, lead: Any, starts: Any, out: Any, width: Any, keep: Any,
    tile: Any, memo_ids: Any, memo_rows: Any, twins: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Output slots first ... last - 1, and the starts of all their entries.

    Args:
        weight: float32 [floats].
        ids: int64 [entries].
        offsets: int64 [features * batch + 1], or empty: one entry per slot.
        factors: float32 [entries], or empty.
        numbers: Table of every feature.
        columns: First output column of every feature, and the end.
        modes: 1 where a feature's bags are averaged, else 0.
        unit, chunk, stride: Floats of a row of the memory, of a chunk; units between blocks.
        starts: int32, written: [entries, pieces] with `keep`, else scratch [tile, pieces].
        out: float32 [batch * width].
        tile: Entries whose starts are computed before they are read, so that misses overlap.
        memo_ids, memo_rows: Of `find_twins`.
        twins: Scratch, int32 [tile], or empty: every entry is computed.
    """
    features = numbers.shape[0]
    early = weight.shape[0] > CACHED
    shift = 0
    if offsets.shape[0] == 0:
        ask_signatures(ids, numbers, rows, codes, fingerprints, first, min(first + tile, last))
        for begin in range(first, last, tile):
            end = min(begin + tile, last)
            ask_signatures(ids, numbers, rows, codes, fingerprints, end, min(end + tile, last))
            if not keep:
                shift = begin
            if twins.shape[0] > 0:
                find_twins(
                    ids, features, columns, width, out, memo_ids, memo_rows, twins, begin, end
                )
            tile_starts(
                ids, numbers, rows, seeds, states, draws, codes, fingerprints, overflow, stride,
                lead, starts, shift, weight, unit, chunk, early, twins, keep,
                begin, end,
            )  # fmt: skip
            copy_tile(
                weight, starts, shift, factors, numbers, columns, rows, unit, chunk, lead, out,
                width, twins, begin, end,
            )  # fmt: skip
        return
    batch = (offsets.shape[0] - 1) // features
    for s in range(first, last):
        r = s // features
        f = s - r * features
        low, high = offsets[f * batch + r], offsets[f * batch + r + 1]
        begin = r * width + columns[f]
        stop = begin + rows[numbers[f], DIM]
        for i in range(begin, stop):
            out[i] = 0
        own = numbers[f : f + 1]
        ask_signatures(ids, own, rows, codes, fingerprints, low, min(low + tile, high))
        for entry in range(low, high, tile):
            end = min(entry + tile, high)
            ask_signatures(ids, own, rows, codes, fingerprints, end, min(end + tile, high))
            if not keep:
                shift = entry
            tile_starts(
                ids, own, rows, seeds, states, draws, codes, fingerprints, overflow, stride, lead,
                starts, shift, weight, unit, chunk, early, twins[:0], keep, entry, end,
            )  # fmt: skip
            add_tile(
                weight, starts, shift, factors, numbers[f], begin, rows, unit, chunk, lead, out,
                entry, end,
            )  # fmt: skip
        if modes[f] == MEAN and high > low:
            for i in range(begin, stop):
                out[i] /= np.float32(high - low)
