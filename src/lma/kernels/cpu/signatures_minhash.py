"""Numba twins of `reference.minhash`: the same bits on any number of threads.

A thread owns the tokens whose slots have its remainder, so no two threads write to one token;
minima commute, so the order of rows, batches and merges does not matter either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.kernels.cpu import mix
from lma.kernels.cpu.mix import combine, mix64, token_key
from lma.kernels.cpu.threads import run_pieces

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

CHUNK_ROWS = 4096  # rows whose two smallest hashes are held at a time; they stay in cache
MOST_PARTS = 4  # more remainders than this cost more in scanning than they gain in balance
_NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint


@kernel
def _hash_rows(begin, end, rows, row_numbers, seeds, first):  # type: ignore[no-untyped-def]
    for r in range(begin, end):
        element = mix64(np.uint64(row_numbers[rows[r]]))
        for code in range(len(seeds)):
            first[r, code] = combine(seeds[code], element)


@kernel
def _two_smallest(  # type: ignore[no-untyped-def]
    begin, end, values, offsets, rows, salts, label_states, seeds, first, second, winner
):
    features = len(salts)
    batch = (len(offsets) - 1) // features
    labelled = len(label_states) > 0
    for r in range(begin, end):
        row = rows[r]
        for code in range(len(seeds)):
            first[r, code] = _NOTHING
            second[r, code] = _NOTHING
            winner[r, code] = -1
        for feature in range(features):
            bag = feature * batch + row
            for entry in range(offsets[bag], offsets[bag + 1]):
                element = token_key(salts[feature], np.uint64(values[entry]))
                if labelled:
                    element = combine(label_states[row], element)
                # Selects instead of branches, so that the loop over codes is vectorised.
                for code in range(len(seeds)):
                    h = combine(seeds[code], element)
                    one = first[r, code]
                    two = second[r, code]
                    less = h < one
                    first[r, code] = h if less else one
                    second[r, code] = one if less else (h if h < two else two)
                    winner[r, code] = entry if less else winner[r, code]


@kernel
def _lower_rows(part, parts, offsets, slots, rows, first, minima, sampled):  # type: ignore[no-untyped-def]
    for r in range(len(rows)):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            slot = slots[entry]
            if slot >= 0 and slot % parts == part:
                sampled[slot] += 1
                for code in range(minima.shape[1]):
                    # Written only when lower: most are not, and their lines stay clean.
                    if first[r, code] < minima[slot, code]:
                        minima[slot, code] = first[r, code]


@kernel
def _lower_contexts(  # type: ignore[no-untyped-def]
    part, parts, offsets, slots, rows, first, second, winner, minima, sampled
):
    for r in range(len(rows)):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            slot = slots[entry]
            if slot >= 0 and slot % parts == part:
                sampled[slot] += 1
                for code in range(minima.shape[1]):
                    h = second[r, code] if winner[r, code] == entry else first[r, code]
                    if h < minima[slot, code]:
                        minima[slot, code] = h


def update_row_minima(
    offsets: I64,
    slots: I64,
    rows: I64,
    row_numbers: I64,
    seeds: U64,
    minima: Sequence[U64],
    sampled: Sequence[I64],
) -> None:
    """See `reference.minhash.update_row_minima`."""
    batch = len(row_numbers)
    first = np.empty((min(len(rows), CHUNK_ROWS), len(seeds)), np.uint64)
    for start in range(0, len(rows), CHUNK_ROWS):
        chosen = rows[start : start + CHUNK_ROWS]
        _hash_rows(0, len(chosen), chosen, row_numbers, seeds, first)

        def lower(feature: int, part: int, parts: int, chosen: I64 = chosen) -> None:
            bags = offsets[feature * batch : (feature + 1) * batch + 1]
            _lower_rows(part, parts, bags, slots, chosen, first, minima[feature], sampled[feature])

        _each_part(lower, len(minima))


def update_context_minima(
    values: I64,
    offsets: I64,
    slots: I64,
    rows: I64,
    salts: U64,
    label_states: U64 | None,
    seeds: U64,
    minima: Sequence[U64],
    sampled: Sequence[I64],
) -> None:
    """See `reference.minhash.update_context_minima`."""
    batch = (len(offsets) - 1) // len(salts)
    states = np.empty(0, np.uint64) if label_states is None else label_states
    shape = (min(len(rows), CHUNK_ROWS), len(seeds))
    first, second = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
    winner = np.empty(shape, np.int64)
    threads = torch.get_num_threads()
    for start in range(0, len(rows), CHUNK_ROWS):
        chosen = rows[start : start + CHUNK_ROWS]

        def smallest(begin: int, end: int, chosen: I64 = chosen) -> None:
            _two_smallest(
                begin, end, values, offsets, chosen, salts, states, seeds, first, second, winner
            )

        def lower(feature: int, part: int, parts: int, chosen: I64 = chosen) -> None:
            bags = offsets[feature * batch : (feature + 1) * batch + 1]
            _lower_contexts(
                part, parts, bags, slots, chosen, first, second, winner,
                minima[feature], sampled[feature],
            )  # fmt: skip

        run_pieces(smallest, len(chosen), max(1, min(threads, len(chosen) // 64)))
        _each_part(lower, len(minima))


def _each_part(run: Any, features: int) -> None:
    """`run(feature, part, parts)` for every feature and remainder, spread over the threads."""
    threads = torch.get_num_threads()
    parts = min(threads, MOST_PARTS)
    tasks = [(feature, part) for feature in range(features) for part in range(parts)]

    def stride(begin: int, end: int) -> None:
        for thread in range(begin, end):
            for feature, part in tasks[thread::threads]:
                run(feature, part, parts)

    run_pieces(stride, threads, threads)


__all__ = ["update_context_minima", "update_row_minima"]
