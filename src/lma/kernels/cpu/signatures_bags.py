"""Numba kernels over the bags of a batch: its layout, repeated values, supports, ranked slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lma.kernels.cpu import mix
from lma.kernels.cpu.threads import num_pieces, run_pieces

TILE_ROWS = 64  # rows that all features visit in turn, so that they are read once
GRAIN = 4096

I64 = npt.NDArray[np.int64]

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint


@kernel
def _by_feature(begin, end, ids, out):  # type: ignore[no-untyped-def]
    for tile in range(begin, end, TILE_ROWS):
        for feature in range(ids.shape[1]):
            for row in range(tile, min(tile + TILE_ROWS, end)):
                out[feature, row] = ids[row, feature]


@kernel
def longest_bag(offsets):  # type: ignore[no-untyped-def]
    """Entries of the longest bag, or -1 where offsets do not ascend."""
    least, longest = np.int64(0), np.int64(0)
    begins, ends = offsets[:-1], offsets[1:]
    for bag in range(len(ends)):
        length = ends[bag] - begins[bag]
        least, longest = min(least, length), max(longest, length)
    return longest if least >= 0 else np.int64(-1)


@kernel
def _ascend(values, offsets):  # type: ignore[no-untyped-def]
    # Steps down anywhere, less those from one bag to the next: one loop without branches.
    steps = 0
    before, after = values[:-1], values[1:]
    for i in range(len(after)):
        steps += after[i] <= before[i]
    for bag in range(len(offsets) - 1):
        i = offsets[bag]
        if 0 < i < offsets[bag + 1]:
            steps -= values[i] <= values[i - 1]
    return steps == 0


@kernel
def _distinct(values, offsets, out, out_offsets):  # type: ignore[no-untyped-def]
    end = 0
    out_offsets[0] = 0
    for bag in range(len(offsets) - 1):
        begin = end
        for i in range(offsets[bag], offsets[bag + 1]):
            value = values[i]
            # Insertion into the bag's sorted run; bags are short.
            place = end
            while place > begin and out[place - 1] > value:
                place -= 1
            if place > begin and out[place - 1] == value:
                continue
            for j in range(end, place, -1):
                out[j] = out[j - 1]
            out[place] = value
            end += 1
        out_offsets[bag + 1] = end
    return end


@kernel
def first_outside(values, size):  # type: ignore[no-untyped-def]
    """Position of the first value outside [0, size), or -1."""
    # One loop without branches over all of them, which are nearly always inside.
    outside = 0
    for i in range(len(values)):
        outside |= values[i] | (size - 1 - values[i])
    if outside >= 0:
        return -1
    for i in range(len(values)):
        if values[i] < 0 or values[i] >= size:
            return i
    return -1


@kernel
def ranked_slots(values, num_slots, slots):  # type: ignore[no-untyped-def]
    """Write into `slots` the value itself where 0 <= value < num_slots, else -1."""
    for i in range(len(values)):
        value = values[i]
        slots[i] = value if 0 <= value < num_slots else -1


@kernel
def count(values, support):  # type: ignore[no-untyped-def]
    """support[v] += 1 for every value, negative ones left out; how many had been 0."""
    fresh = 0
    for i in range(len(values)):
        if values[i] >= 0:
            fresh += support[values[i]] == 0
            support[values[i]] += 1
    return fresh


@kernel
def add_labels(slots, rows, labels, sums):  # type: ignore[no-untyped-def]
    """sums[slot] += label of its row, for every entry with a slot."""
    for i in range(len(slots)):
        if slots[i] >= 0:
            sums[slots[i]] += labels[rows[i]]


def by_feature(ids: I64) -> I64:
    """`ids.T` of [batch, features], contiguous and flat."""
    out = np.empty(ids.shape[::-1], np.int64)
    run_pieces(
        lambda begin, end: _by_feature(begin, end, ids, out), len(ids), num_pieces(len(ids), GRAIN)
    )
    return out.reshape(-1)


def distinct(values: I64, offsets: I64) -> tuple[I64, I64]:
    """The distinct values of every bag, ascending: (values, offsets)."""
    if _ascend(values, offsets):
        return values, offsets
    out, out_offsets = np.empty_like(values), np.empty_like(offsets)
    end = _distinct(values, offsets, out, out_offsets)
    return out[:end], out_offsets


__all__ = [
    "add_labels",
    "by_feature",
    "count",
    "distinct",
    "first_outside",
    "longest_bag",
    "ranked_slots",
]
