"""A map from 64-bit token ids to the order in which they were first met, open addressing."""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu import mix
from lma.kernels.cpu.mix import inlined, mix64, reduce_range

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint


@inlined
def _first(value: Any, table: Any) -> Any:
    return np.int64(reduce_range(mix64(np.uint64(value)), np.uint64(len(table))))


@inlined
def _next(place: Any, table: Any) -> Any:
    return place + 1 if place + 1 < len(table) else 0


@kernel
def insert(values, start, table, ids, known, slots):  # type: ignore[no-untyped-def]
    """Slots of values[start:], new ids appended; stops where the table or `ids` is full.

    Args:
        values: int64 [n].
        start: First value to look at.
        table: int32 [places], the slot at each place or -1.
        ids: int64 [room]; the first `known` are in use.
        known: Ids so far.
        slots: int64 [n], written from `start` on.

    Returns:
        (position of the first value not done, ids now known).
    """
    # Linear probing stays short up to three quarters of the places.
    limit = min(len(ids), len(table) // 4 * 3)
    for i in range(start, len(values)):
        value = values[i]
        place = _first(value, table)
        while table[place] >= 0 and ids[table[place]] != value:
            place = _next(place, table)
        if table[place] < 0:
            if known >= limit:
                return i, known
            table[place] = known
            ids[known] = value
            known += 1
        slots[i] = table[place]
    return len(values), known


@kernel
def find(values, table, ids, slots):  # type: ignore[no-untyped-def]
    """Slots of values, -1 for unknown ones."""
    for i in range(len(values)):
        value = values[i]
        place = _first(value, table)
        while table[place] >= 0 and ids[table[place]] != value:
            place = _next(place, table)
        slots[i] = table[place]


@kernel
def fill(table, ids, known):  # type: ignore[no-untyped-def]
    """Enter the first `known` ids into an empty table; the slot of one that is there twice, or -1.

    Stops there: of ids that are all different, all are entered.
    """
    for slot in range(known):
        place = _first(ids[slot], table)
        while table[place] >= 0:
            if ids[table[place]] == ids[slot]:
                return slot
            place = _next(place, table)
        table[place] = slot
    return -1


__all__ = ["fill", "find", "insert"]
