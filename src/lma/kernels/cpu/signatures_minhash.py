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
TILE_ROWS = 64  # rows that all features visit in turn
AHEAD = 24  # entries from asking for a token's minima to lowering them
MOST_PARTS = 4  # of a feature; more cost more in scanning than they gain in balance
GROUPED_CODES = 32  # from here on a token's minima outweigh the sorting of its entries
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


@kernel
def _group(  # type: ignore[no-untyped-def]
    part, parts, offsets, slots, rows, elements, begins, ends, grouped
):
    """Sort elements by the token they belong to, as pairs of (upper, lower) halves.

    Those of a slot are pairs begins[slot] ... ends[slot] - 1 of `grouped`; `ends` is 0 at first.
    """
    # Rows that are not used are counted too: room for them is cheaper than looking at bags twice.
    for entry in range(offsets[0], offsets[len(offsets) - 1]):
        if _owned(slots[entry], part, parts):
            ends[np.uint64(slots[entry])] += 1
    begin = 0
    for slot in range(len(ends)):
        begins[slot] = begin
        begin += ends[slot]
        ends[slot] = begins[slot]
    for r in range(len(rows)):
        element = elements[rows[r]]
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            if _owned(slots[entry], part, parts):
                mine = np.uint64(slots[entry])
                place = np.uint64(ends[mine]) << _1
                grouped[place] = np.uint32(element >> _32)
                grouped[place | _1] = np.uint32(element)
                ends[mine] += 1


@kernel
def _lower_grouped(begins, ends, grouped, multipliers, minima, sampled):  # type: ignore[no-untyped-def]
    """`_lower_rows` token by token, whose minima stay in registers meanwhile."""
    width = minima.shape[1]
    for slot in range(len(ends)):
        begin, end = np.uint64(begins[slot]) << _1, np.uint64(ends[slot]) << _1
        if end > begin:
            sampled[slot] += (end - begin) >> _1
            for code in range(0, width, 2 * WIDTH):
                # Two vectors at a time; an odd last one is done twice, which changes nothing.
                other = min(code + WIDTH, width - WIDTH)
                one, two = load(minima, slot * width + code), load(minima, slot * width + other)
                factor_one, factor_two = load(multipliers, code), load(multipliers, other)
                i = begin
                while i < end:
                    upper, lower = spread(grouped[i]), spread(grouped[i | _1])
                    one = least(one, add_product(upper, factor_one, lower))
                    two = least(two, add_product(upper, factor_two, lower))
                    i += _2
                store(minima, slot * width + code, one)
                store(minima, slot * width + other, two)


@kernel
def _two_smallest(  # type: ignore[no-untyped-def]
    begin, end, values, offsets, rows, salts, states, multipliers, elements, first, second
):
    width = len(multipliers)
    batch = len(states)
    nothing = spread(_NOTHING)
    for place in range(begin * width, end * width, WIDTH):
        store(first, place, nothing)
        store(second, place, nothing)
    for tile in range(begin, end, TILE_ROWS):
        for feature in range(len(salts)):
            for r in range(tile, min(tile + TILE_ROWS, end)):
                bag = feature * batch + rows[r]
                for entry in range(offsets[bag], offsets[bag + 1]):
                    key = token_key(salts[feature], np.uint64(values[entry]))
                    element = combine(states[rows[r]], key)
                    elements[entry] = element
                    upper, lower = _upper(element), _lower(element)
                    for code in range(0, width, WIDTH):
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
            begins, ends = np.empty(known, np.int64), np.zeros(known, np.int64)
            grouped = np.empty(2 * entries, np.uint32)
            _group(part, parts, bags, slots, rows, elements, begins, ends, grouped)
            _lower_grouped(begins, ends, grouped, multipliers, minima[feature], sampled[feature])
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
    states: U64,
    multipliers: U32,
    minima: Sequence[U32],
    sampled: Sequence[I64],
) -> None:
    """See `reference.minhash.update_context_minima`."""
    batch, codes = len(states), len(multipliers)
    most_rows = min(len(rows), max(1, CHUNK_HASHES // codes))
    first, second = np.empty((2, most_rows * codes), np.uint32)
    elements = np.empty(len(values), np.uint64)
    for start in range(0, len(rows), max(1, most_rows)):
        chosen = rows[start : start + most_rows]

        def smallest(begin: int, end: int, chosen: I64 = chosen) -> None:
            _two_smallest(
                begin, end, values, offsets, chosen, salts, states, multipliers, elements,
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


__all__ = ["update_context_minima", "update_row_minima", "winning_codes"]
