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
MOST_PARTS = 4  # more parts than this cost more in scanning than they gain in balance
GROUPED_CODES = 32  # from here on a token's minima outweigh the sorting of its entries
_NOTHING = np.uint32(0xFFFFFFFF)
_32 = np.uint64(32)

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint


@inlined
def _upper(element: Any) -> Any:
    return spread(np.uint32(element >> _32))


@inlined
def _lower(element: Any) -> Any:
    return spread(np.uint32(element))


@inlined
def _owned(slot: Any, part: Any, parts: Any) -> Any:
    # Pairs of tokens, whose minima of 8 codes share a cache line.
    return slot >= 0 and (slot >> 1) % parts == part


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
def _lower_grouped_rows(  # type: ignore[no-untyped-def]
    part, parts, offsets, slots, rows, elements, multipliers, minima, sampled, ends, grouped
):
    """`_lower_rows` with the entries sorted by token: its minima stay in registers."""
    for r in range(len(rows)):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            if _owned(slots[entry], part, parts):
                ends[slots[entry] + 1] += 1
    for slot in range(len(sampled)):
        sampled[slot] += ends[slot + 1]
        ends[slot + 1] += ends[slot]
    # ends[slot] is where the slot's elements begin, and, once they are in place, where they end.
    for r in range(len(rows)):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            if _owned(slots[entry], part, parts):
                grouped[ends[slots[entry]]] = elements[rows[r]]
                ends[slots[entry]] += 1
    width = minima.shape[1]
    begin = np.uint64(0)
    for slot in range(len(sampled)):
        end = np.uint64(ends[slot])
        if end > begin:
            for code in range(0, width, WIDTH):
                factors = load(multipliers, code)
                lowest = load(minima, slot * width + code)
                for i in range(begin, end):
                    h = add_product(_upper(grouped[i]), factors, _lower(grouped[i]))
                    lowest = least(lowest, h)
                store(minima, slot * width + code, lowest)
        begin = end


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
        arguments = (
            part, parts, bags, slots, rows, elements, multipliers, minima[feature], sampled[feature]
        )  # fmt: skip
        if len(multipliers) >= GROUPED_CODES and entries > known:
            ends = np.zeros(known + 1, np.int64)
            _lower_grouped_rows(*arguments, ends, np.empty(entries, np.uint64))
        else:
            _lower_rows(*arguments)

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
    parts = max(1, min(MOST_PARTS, -(-2 * threads // max(1, features)))) if threads > 1 else 1
    # One step of a list's iterator is atomic.
    tasks = iter([(feature, part) for feature in range(features) for part in range(parts)])

    def work(_begin: int, _end: int) -> None:
        for feature, part in tasks:
            run(feature, part, parts)

    run_pieces(work, threads, threads)


__all__ = ["update_context_minima", "update_row_minima", "winning_codes"]
