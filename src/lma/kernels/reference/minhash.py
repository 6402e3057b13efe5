"""Min-hash of a batch of log rows, in plain NumPy: the definition that the kernels must equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lma.hashing import combine, mix64, token_keys

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)  # the minimum over no elements


def update_row_minima(
    offsets: I64,
    slots: I64,
    rows: I64,
    row_numbers: I64,
    seeds: U64,
    minima: Sequence[U64],
    sampled: Sequence[I64],
) -> None:
    """Min-hash the sets of log rows that tokens occur in (SCMA, Desai et al. 2021, section 5).

    For every entry of row r and every code c:

        minima[slot, c] = min(minima[slot, c], hash_c(mix(number of row r)))

    Args:
        offsets: Where bag b of feature f begins, at f * batch + b; int64 [features * batch + 1].
        slots: Place of every entry's token in its table's minima, -1 for none; int64 [entries].
        rows: Positions in the batch of the rows to use, int64 [n].
        row_numbers: Number in the whole log of every row of the batch, int64 [batch].
        seeds: State of every code's hash function, uint64 [codes].
        minima: Per feature, uint64 [tokens, codes]; changed in place.
        sampled: Per feature, rows used per token, int64 [tokens]; changed in place.
    """
    row, feature, used = _entries(offsets, rows, len(row_numbers))
    for code, seed in enumerate(seeds):
        hashes = combine(seed, mix64(row_numbers))[row]
        _lower(minima, sampled, feature, slots, used, hashes, code)


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
    """Min-hash the sets of tokens (or of pairs token, label) met in the same rows.

    Per row and code only the two smallest hashes matter: an entry meets every other entry of its
    row, hence the smallest hash, or the second smallest where the smallest is its own.

    Args:
        values: Token ids, feature-major, distinct within a bag; int64 [entries].
        offsets, slots, rows, seeds, minima, sampled: As `update_row_minima`.
        salts: Of the features' tables, uint64 [features].
        label_states: State per row that keys are combined with, uint64 [batch]; None: none.
    """
    batch = (len(offsets) - 1) // len(salts)
    row, feature, used = _entries(offsets, rows, batch)
    keys = token_keys(salts[feature], values)
    elements = keys if label_states is None else combine(label_states[row], keys)
    for code, seed in enumerate(seeds):
        hashes = combine(seed, elements)
        order = np.lexsort((hashes, row))
        sizes = np.bincount(row, minlength=batch)
        begin = np.cumsum(sizes) - sizes
        first, second = np.full((2, batch), NOTHING)
        first[sizes > 0] = hashes[order[begin[sizes > 0]]]
        second[sizes > 1] = hashes[order[begin[sizes > 1] + 1]]
        met = np.where(hashes == first[row], second[row], first[row])
        _lower(minima, sampled, feature, slots, used, met, code)


def _entries(offsets: I64, rows: I64, batch: int) -> tuple[I64, I64, npt.NDArray[np.bool_]]:
    """Row, feature, and whether its row is used, of every entry."""
    bag = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    row = bag % max(batch, 1)
    return row, bag // max(batch, 1), np.isin(row, rows)


def _lower(
    minima: Sequence[U64],
    sampled: Sequence[I64],
    feature: I64,
    slots: I64,
    used: npt.NDArray[np.bool_],
    hashes: U64,
    code: int,
) -> None:
    for number, table in enumerate(minima):
        chosen = used & (slots >= 0) & (feature == number)
        np.minimum.at(table[:, code], slots[chosen], hashes[chosen])
        if code == 0:
            np.add.at(sampled[number], slots[chosen], 1)


__all__ = ["NOTHING", "update_context_minima", "update_row_minima"]
