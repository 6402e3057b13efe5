"""Numba twins of `reference.minhash`: the same bits on any number of threads.

A thread owns some of the tokens of a table, so no two threads write to one token; minima commute,
so the order of rows, batches and merges does not matter either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.kernels.cpu import mix
from lma.kernels.cpu.lanes import WIDTH, add_product, least, load, most, spread, store, where_equal
from lma.kernels.cpu.mix import combine, inlined, token_key
from lma.kernels.cpu.prefetch import prefetch
from lma.kernels.cpu.threads import num_pieces, run_pieces

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

CHUNK_HASHES = 1 << 16  # two smallest hashes of rows x codes held at a time; they stay in cache
GRAIN_ROWS = 1 << 14  # rows that are worth a thread of their own
REGION_HASHES = 1 << 19  # worth calling the other threads for, which takes some 40 microseconds
TILE_ROWS = 64  # rows that all features visit in turn
AHEAD = 24  # entries from asking for a token's minima to lowering them
MOST_PARTS = 4  # of a feature; more cost more in scanning than they gain in balance
GROUPED_CODES = 32  # from here on a token's minima outweigh the sorting of its entries; 4 * WIDTH
GROUP_ENTRIES = 1 << 14  # entries sorted at a time at least: their elements stay in cache
GROUP_DEPTH = 16  # entries per token sorted at a time at least
SPARE = 8  # entries that most bags do not exceed
_NOTHING = np.uint32(0xFFFFFFFF)
_1, _2, _32 = (np.uint64(i) for i in (1, 2, 32))

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint


@inlined
def _upper(element: Any) -> Any:
    return spread(np.uint32(element >> _32))


@inlined
def _lower(element: Any) -> Any:
    return spread(np.uint32(element))


@inlined
def _owned(slot: Any, part: Any, parts: Any) -> Any:
    # `parts` is a power of two. Pairs of tokens: minima of 8 codes share a cache line.
    return slot >= 0 and (slot >> 1) & (parts - 1) == part


@kernel
def _hash_rows(begin, end, state, first_row, elements):  # type: ignore[no-untyped-def]
    for row in range(begin, end):
        elements[row] = combine(state, np.uint64(first_row + row))


@kernel
def _lower_rows(  # type: ignore[no-untyped-def]
    part, parts, offsets, slots, rows, elements, multipliers, minima, sampled
):
    width = minima.shape[1]
    last = offsets[len(offsets) - 1] - 1
    for r in range(len(rows)):
        upper, lower = _upper(elements[rows[r]]), _lower(elements[rows[r]])
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            prefetch(minima, slots[min(entry + AHEAD, last)] * width)
            slot = slots[entry]
            if _owned(slot, part, parts):
                sampled[slot] += 1
                for code in range(0, width, WIDTH):
                    h = add_product(upper, load(multipliers, code), lower)
                    place = slot * width + code
                    store(minima, place, least(load(minima, place), h))


@inlined
def _spread_elements(first: Any, last: Any, offsets: Any, elements: Any, out: Any) -> None:
    """The element of its row for every entry of rows `first` to `last`; `out` has 8 to spare."""
    base = offsets[first]
    for row in range(first, last):
        element = elements[row]
        entry, stop = np.uint64(offsets[row] - base), np.uint64(offsets[row + 1] - base)
        # Most bags are shorter: eight stores, which the next bag overwrites, cost less than a
        # branch that cannot be foreseen.
        for more in range(SPARE):
            out[entry + np.uint64(more)] = element
        entry += np.uint64(SPARE)
        while entry < stop:
            out[entry] = element
            entry += _1


@inlined
def _put(slot: Any, element: Any, ends: Any, grouped: Any) -> None:
    place = np.uint64(ends[slot]) << _1
    grouped[place] = np.uint32(element >> _32)
    grouped[place | _1] = np.uint32(element)
    ends[slot] += np.int32(1)


@kernel
def _group(  # type: ignore[no-untyped-def]
    offsets, slots, rows, first, elements, begins, ends, spreads, grouped
):
    """Sort the elements of rows[first:] by the token they belong to, until `grouped` is full.

    They are pairs of (upper, lower) halves, which cost less to load into vectors; those of a slot
    are pairs begins[slot] ... ends[slot] - 1 of `grouped`. `spreads` is scratch memory for as many
    elements and `SPARE` more.

    Returns:
        The first of the rows left over.
    """
    room = len(grouped) >> _1
    start = offsets[rows[first]]
    stop, last = offsets[rows[first] + 1], first + 1
    while last < len(rows) and offsets[rows[last] + 1] - start <= room:
        stop = offsets[rows[last] + 1]
        last += 1
    ends[:] = 0
    # Rows that are not used are counted too: room for them is cheaper than looking at bags twice.
    for entry in range(start, stop):
        if slots[entry] >= 0:
            ends[np.uint64(slots[entry])] += 1
    begin = 0
    for slot in range(len(ends)):
        begins[slot] = begin
        begin += ends[slot]
        ends[slot] = begins[slot]
    if len(rows) == len(elements):
        _spread_elements(first, last, offsets, elements, spreads)
        for entry in range(start, stop):
            if slots[entry] >= 0:
                _put(np.uint64(slots[entry]), spreads[entry - start], ends, grouped)
        return last
    for r in range(first, last):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            if slots[entry] >= 0:
                _put(np.uint64(slots[entry]), elements[rows[r]], ends, grouped)
    return last


@kernel
def _lower_group(begins, ends, grouped, multipliers, minima, sampled):  # type: ignore[no-untyped-def]
    """`_lower_rows` token by token, whose minima stay in registers meanwhile."""
    width = minima.shape[1]
    for slot in range(len(ends)):
        begin, end = np.uint64(begins[slot]) << _1, np.uint64(ends[slot]) << _1
        if end > begin:
            sampled[slot] += (end - begin) >> _1
            for code in range(0, width, 4 * WIDTH):
                # Four vectors at a time; where the last ones overlap, the same is done twice.
                c0 = min(code, width - 4 * WIDTH)
                c1, c2, c3 = c0 + WIDTH, c0 + 2 * WIDTH, c0 + 3 * WIDTH
                f0, f1 = load(multipliers, c0), load(multipliers, c1)
                f2, f3 = load(multipliers, c2), load(multipliers, c3)
                base = slot * width
                m0, m1 = load(minima, base + c0), load(minima, base + c1)
                m2, m3 = load(minima, base + c2), load(minima, base + c3)
                i = begin
                while i < end:
                    upper, lower = spread(grouped[i]), spread(grouped[i | _1])
                    m0 = least(m0, add_product(upper, f0, lower))
                    m1 = least(m1, add_product(upper, f1, lower))
                    m2 = least(m2, add_product(upper, f2, lower))
                    m3 = least(m3, add_product(upper, f3, lower))
                    i += _2
                store(minima, base + c0, m0)
                store(minima, base + c1, m1)
                store(minima, base + c2, m2)
                store(minima, base + c3, m3)


@kernel
def _lower_grouped(  # type: ignore[no-untyped-def]
    offsets, slots, rows, elements, multipliers, begins, ends, spreads, grouped, minima, sampled
):
    first = 0
    while first < len(rows):
        first = _group(offsets, slots, rows, first, elements, begins, ends, spreads, grouped)
        _lower_group(begins, ends, grouped, multipliers, minima, sampled)


@kernel
def _two_smallest(  # type: ignore[no-untyped-def]
    begin, end, values, offsets, rows, salts, told, states, multipliers, elements, first, second
):
    width = len(multipliers)
    batch = len(states)
    nothing = spread(_NOTHING)
    for place in range(begin * width, end * width, WIDTH):
        store(first, place, nothing)
        store(second, place, nothing)
    for tile in range(begin, end, TILE_ROWS):
        for feature in range(len(salts)):
            # The others' hashes are needed all the same, to be compared with the smallest.
            codes = width if told[feature] else 0
            for r in range(tile, min(tile + TILE_ROWS, end)):
                bag = feature * batch + rows[r]
                for entry in range(offsets[bag], offsets[bag + 1]):
                    key = token_key(salts[feature], np.uint64(values[entry]))
                    element = combine(states[rows[r]], key)
                    elements[entry] = element
                    upper, lower = _upper(element), _lower(element)
                    for code in range(0, codes, WIDTH):
                        h = add_product(upper, load(multipliers, code), lower)
                        place = r * width + code
                        one, two = load(first, place), load(second, place)
                        store(first, place, least(one, h))
                        store(second, place, least(two, most(one, h)))


@kernel
def _lower_contexts(  # type: ignore[no-untyped-def]
    part, parts, offsets, slots, rows, elements, multipliers, first, second, minima, sampled
):
    width = minima.shape[1]
    last = offsets[len(offsets) - 1] - 1
    for r in range(len(rows)):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            prefetch(minima, slots[min(entry + AHEAD, last)] * width)
            slot = slots[entry]
            if _owned(slot, part, parts):
                sampled[slot] += 1
                upper, lower = _upper(elements[entry]), _lower(elements[entry])
                for code in range(0, width, WIDTH):
                    # A hash equal to the smallest is its own, or another's: then both are equal.
                    h = add_product(upper, load(multipliers, code), lower)
                    one, two = load(first, r * width + code), load(second, r * width + code)
                    place = slot * width + code
                    met = where_equal(h, one, two, one)
                    store(minima, place, least(load(minima, place), met))


@kernel
def _write_codes(  # type: ignore[no-untyped-def]
    begin, end, minima, sampled, slots, own, multipliers, min_support, state, drop, codes
):
    for i in range(begin, end):
        slot = slots[i]
        alone = True
        for code in range(minima.shape[1]):
            alone &= minima[slot, code] == _NOTHING
        alone |= sampled[slot] < min_support
        upper, lower = np.uint32(own[i] >> _32), np.uint32(own[i])
        for code in range(len(multipliers)):
            h = np.uint32(upper + multipliers[code] * lower) if alone else minima[slot, code]
            codes[i, code] = combine(state, np.uint64(h)) >> drop


def row_elements(state: int, first_row: int, num_rows: int) -> U64:
    """`hashing.combine(state, row)` of consecutive rows, uint64 [num_rows]."""
    elements = np.empty(num_rows, np.uint64)

    def run(begin: int, end: int) -> None:
        _hash_rows(begin, end, np.uint64(state), np.int64(first_row), elements)

    run_pieces(run, num_rows, num_pieces(num_rows, GRAIN_ROWS))
    return elements


def update_row_minima(
    offsets: I64,
    slots: I64,
    rows: I64,
    elements: U64,
    multipliers: U32,
    minima: Sequence[U32],
    sampled: Sequence[I64],
) -> None:
    """See `reference.minhash.update_row_minima`."""
    batch = len(elements)

    def lower(feature: int, part: int, parts: int) -> None:
        bags = offsets[feature * batch : (feature + 1) * batch + 1]
        known, entries = len(sampled[feature]), int(bags[-1] - bags[0])
        if len(multipliers) >= GROUPED_CODES and entries > known:
            if part > 0:
                return  # one thread does all: each would have to look at every entry twice
            begins, ends = np.empty((2, known), np.int32)
            # A row is never cut in two, and tokens that are not signed have entries too.
            longest = int(np.diff(bags).max(initial=0))
            room = min(entries, max(GROUP_ENTRIES, GROUP_DEPTH * known, longest))
            spreads, grouped = np.empty(room + SPARE, np.uint64), np.empty(2 * room, np.uint32)
            _lower_grouped(
                bags, slots, rows, elements, multipliers, begins, ends, spreads, grouped,
                minima[feature], sampled[feature],
            )  # fmt: skip
        else:
            _lower_rows(
                part, parts, bags, slots, rows, elements, multipliers, minima[feature],
                sampled[feature],
            )  # fmt: skip

    _each_part(lower, len(minima))


def update_context_minima(
    values: I64,
    offsets: I64,
    slots: I64,
    rows: I64,
    salts: U64,
    told: npt.NDArray[np.bool_],
    states: U64,
    multipliers: U32,
    minima: Sequence[U32],
    sampled: Sequence[I64],
) -> None:
    """See `reference.minhash.update_context_minima`."""
    batch, codes = len(states), len(multipliers)
    most_rows = CHUNK_HASHES // codes
    if torch.get_num_threads() > 1:
        most_rows = max(most_rows, REGION_HASHES // (codes * max(1, len(minima))))
    most_rows = min(len(rows), max(1, most_rows))
    first, second = np.empty((2, most_rows * codes), np.uint32)
    elements = np.empty(len(values), np.uint64)
    for start in range(0, len(rows), max(1, most_rows)):
        chosen = rows[start : start + most_rows]

        def smallest(begin: int, end: int, chosen: I64 = chosen) -> None:
            _two_smallest(
                begin, end, values, offsets, chosen, salts, told, states, multipliers, elements,
                first, second,
            )  # fmt: skip

        def lower(feature: int, part: int, parts: int, chosen: I64 = chosen) -> None:
            bags = offsets[feature * batch : (feature + 1) * batch + 1]
            _lower_contexts(
                part, parts, bags, slots, chosen, elements, multipliers, first, second,
                minima[feature], sampled[feature],
            )  # fmt: skip

        run_pieces(smallest, len(chosen), num_pieces(len(chosen), TILE_ROWS))
        _each_part(lower, len(minima))


def winning_codes(
    minima: U32,
    sampled: I64,
    slots: I64,
    own: U64,
    multipliers: U32,
    *,
    min_support: int,
    state: int,
    code_bits: int,
) -> U16:
    """See `reference.minhash.winning_codes`."""
    codes = np.empty((len(slots), len(multipliers)), np.uint16)

    def run(begin: int, end: int) -> None:
        _write_codes(
            begin, end, minima, sampled, slots, own, multipliers, min_support,
            np.uint64(state), np.uint64(64 - code_bits), codes,
        )  # fmt: skip

    run_pieces(run, len(slots), num_pieces(len(slots), TILE_ROWS))
    return codes


def _each_part(run: Callable[[int, int, int], None], features: int) -> None:
    """`run(feature, part, parts)` for every part of every feature, as threads become free."""
    threads = torch.get_num_threads()
    # Two tasks a thread, so that no thread waits long for another.
    parts = 1
    while threads > 1 and parts < MOST_PARTS and parts * features < 2 * threads:
        parts *= 2
    # One step of a list's iterator is atomic.
    tasks = iter([(feature, part) for feature in range(features) for part in range(parts)])

    def work(_begin: int, _end: int) -> None:
        for feature, part in tasks:
            run(feature, part, parts)

    run_pieces(work, threads, threads)


__all__ = ["row_elements", "update_context_minima", "update_row_minima", "winning_codes"]
