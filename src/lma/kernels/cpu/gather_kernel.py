"""The fused lookup's forward: starts, gather and pooling, slot after slot.

A *slot* is one vector of the output: feature f of batch row r, number r * features + f. Its bag
is one entry (`offsets` empty), or entries offsets[f * batch + r] up to the next offset.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.address_kernel import CHUNKS, DIM, PRIVATE_DIM, starts_range
from lma.kernels.cpu.mix import kernel
from lma.kernels.cpu.runs import add_run, copy_run

TILE = 64  # entries whose starts are computed before they are read, so that misses overlap
CACHED = 1 << 15  # floats that stay in a core's cache without being asked for
MEAN = 1


@kernel
def copy_tile(
    weight: Any, starts: Any, shift: Any, factors: Any, numbers: Any, columns: Any, rows: Any,
    unit: Any, chunk: Any, lead: Any, out: Any, width: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Slots of one entry each: slot s reads row s - shift of `starts`."""
    features = numbers.shape[0]
    r = first // features
    f = first - r * features
    weighted = factors.shape[0] > 0
    for s in range(first, last):
        e = s - shift
        t = numbers[f]
        begin = r * width + columns[f]
        stop = begin + rows[t, DIM]
        place = begin
        private = rows[t, PRIVATE_DIM]
        if private > 0:
            copy_run(weight, np.int64(starts[e, 0]) * unit, private, out, place)
            place += private
        chunks = rows[t, CHUNKS]
        if chunk == 1:
            t0 = np.uint64(place)
            for j in range(chunks):
                start = np.uint64(starts[e, lead + j]) * np.uint64(unit)
                out[t0 + np.uint64(j)] = weight[start]
        else:
            for j in range(chunks):
                start = np.int64(starts[e, lead + j]) * unit
                copy_run(weight, start, min(chunk, stop - place), out, place)
                place += chunk
        if weighted:
            factor = factors[s]
            for i in range(begin, stop):
                out[i] *= factor
        f += 1
        if f == features:
            f = 0
            r += 1


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
    unit: Any, chunk: Any, stride: Any, lead: Any, starts: Any, out: Any,
    width: Any, keep: Any, first: Any, last: Any,
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
        starts: int32, written: [entries, pieces] with `keep`, else scratch [TILE, pieces].
        out: float32 [batch * width].
    """
    features = numbers.shape[0]
    early = weight.shape[0] > CACHED
    shift = 0
    if offsets.shape[0] == 0:
        for tile in range(first, last, TILE):
            end = min(tile + TILE, last)
            if not keep:
                shift = tile
            starts_range(
                ids, numbers, rows, seeds, states, draws, codes, fingerprints, overflow, stride,
                lead, starts, shift, weight, unit,
                early, tile, end,
            )  # fmt: skip
            copy_tile(
                weight, starts, shift, factors, numbers, columns, rows, unit, chunk, lead, out,
                width, tile, end,
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
        for tile in range(low, high, TILE):
            end = min(tile + TILE, high)
            if not keep:
                shift = tile
            starts_range(
                ids, numbers[f : f + 1], rows, seeds, states, draws, codes, fingerprints,
                overflow, stride, lead, starts, shift, weight, unit,
                early, tile, end,
            )  # fmt: skip
            add_tile(
                weight, starts, shift, factors, numbers[f], begin, rows, unit, chunk, lead, out,
                tile, end,
            )  # fmt: skip
        if modes[f] == MEAN and high > low:
            for i in range(begin, stop):
                out[i] /= np.float32(high - low)
