"""Min-hash of a batch of log rows, in plain NumPy: the definition that the kernels must equal.

An element of a set is a strong 64-bit hash, two independent halves of 32 bits. Code c orders
elements by

    hash_c(element) = upper half + m_c * lower half   (mod 2^32)

and keeps the smallest. Over random elements every hash_c is uniform, so two sets' minima are equal
with probability psi, their Jaccard similarity. Two codes c != d are independent: (hash_c, hash_d)
is a linear map of the two halves of determinant m_d - m_c, which divides 2^7 up to an odd factor
because the lower 8 bits of m_c are c. So the share of `codes` equal minima has the variance
psi (1 - psi) / codes of fully independent hashes (double hashing, Kirsch and Mitzenmacher 2008,
with random multipliers, so that no three codes stand in a simple relation).

32 bits are enough for sets of many million elements: minima of two disjoint sets of n elements are
equal by chance with probability

    sum over v of (n / 2^32)^2 (1 - v / 2^32)^(2 n - 2), about n / 2^33

which is 1.2e-5 for n = 100 thousand (less than the 1.5e-5 of a code of 16 bits) and 0.0012 for 10
million. A sample of rows (`SignatureConfig.sample_rows`) keeps sets smaller than that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lma.hashing import as_u64, combine, token_keys

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

NOTHING = np.uint32(0xFFFFFFFF)  # the minimum over no elements


def code_hashes(elements: npt.ArrayLike, multipliers: U32) -> U32:
    """hash_c of 64-bit elements under every code, uint32 [..., codes]."""
    halves = as_u64(elements)[..., None]
    upper = (halves >> np.uint64(32)).astype(np.uint32)
    return upper + multipliers * halves.astype(np.uint32)


def update_row_minima(
    offsets: I64,
    slots: I64,
    rows: I64,
    elements: U64,
    multipliers: U32,
    minima: Sequence[U32],
    sampled: Sequence[I64],
) -> None:
    """Min-hash the sets of log rows that tokens occur in (SCMA, Desai et al. 2021, section 5).

    For every entry of row r and every code c:

        minima[slot, c] = min(minima[slot, c], hash_c(element of r))

    Args:
        offsets: Where bag b of feature f begins, at f * batch + b; int64 [features * batch + 1].
        slots: Place of every entry's token in its table's minima, -1 for none; int64 [entries].
        rows: Positions in the batch of the rows to use, int64 [n].
        elements: Hash of every row of the batch, uint64 [batch].
        multipliers: m_c, uint32 [codes]; the kernels take a multiple of 8 codes.
        minima: Per feature, uint32 [tokens, codes]; changed in place.
        sampled: Per feature, rows used per token, int64 [tokens]; changed in place.
    """
    row, feature, used = _entries(offsets, rows, len(elements))
    hashes = code_hashes(elements, multipliers)
    _lower(minima, sampled, feature, slots, used, hashes[row])


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
    """Min-hash the sets of tokens (or of pairs token, label) met in the same rows.

    Per row and code only the two smallest hashes matter: an entry meets every other entry of its
    row, hence the smallest hash, or the second smallest where the smallest is its own.

    Args:
        values: Token ids, feature-major, distinct within a bag; int64 [entries].
        offsets, slots, rows, multipliers, minima, sampled: As `update_row_minima`.
        salts: Of the features' tables, uint64 [features].
        told: Whether a feature's tokens count as met by others, bool [features].
        states: What a row's token keys are combined with, uint64 [batch]: one for all rows, or
            one per label.
    """
    row, feature, used = _entries(offsets, rows, len(states))
    elements = combine(states[row], token_keys(salts[feature], values))
    hashes = code_hashes(elements, multipliers)
    met = np.empty_like(hashes)
    seen = told[feature]
    sizes = np.bincount(row[seen], minlength=len(states))
    begin = np.cumsum(sizes) - sizes
    for code in range(len(multipliers)):
        own = hashes[:, code]
        order = np.lexsort((own[seen], row[seen]))
        first, second = np.full((2, len(states)), NOTHING)
        first[sizes > 0] = own[seen][order[begin[sizes > 0]]]
        second[sizes > 1] = own[seen][order[begin[sizes > 1] + 1]]
        met[:, code] = np.where(own == first[row], second[row], first[row])
    _lower(minima, sampled, feature, slots, used, met)


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
    """Codes of tokens: a hash of every minimum, cut to `code_bits`; uint16 [n, codes].

    A token used in fewer than `min_support` rows, or whose set is empty, takes its `own` element
    for its set. Minima of an empty set are all NOTHING; those of other sets are so with
    probability 2^-64 at most.

    Args:
        minima: uint32 [tokens, at least codes].
        sampled: Rows used per token, int64 [tokens].
        slots: The tokens to code, int64 [n].
        own: Element that stands for the token itself, uint64 [n].
        multipliers: uint32 [codes].
        min_support: Rows that a token's set must be of.
        state: Of the hash of the winners.
        code_bits: 1 to 16.
    """
    chosen = minima[slots]
    alone = (sampled[slots] < min_support) | (chosen == NOTHING).all(axis=1)
    hashes = code_hashes(own, multipliers)
    winners = np.where(alone[:, None], hashes, chosen[:, : len(multipliers)]).astype(np.uint64)
    return (combine(state, winners) >> np.uint64(64 - code_bits)).astype(np.uint16)


def _entries(offsets: I64, rows: I64, batch: int) -> tuple[I64, I64, npt.NDArray[np.bool_]]:
    """Row, feature, and whether its row is used, of every entry."""
    bag = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    row = bag % max(batch, 1)
    return row, bag // max(batch, 1), np.isin(row, rows)


def _lower(
    minima: Sequence[U32],
    sampled: Sequence[I64],
    feature: I64,
    slots: I64,
    used: npt.NDArray[np.bool_],
    hashes: U32,
) -> None:
    for number, table in enumerate(minima):
        chosen = used & (slots >= 0) & (feature == number)
        np.minimum.at(table, slots[chosen], hashes[chosen])
        np.add.at(sampled[number], slots[chosen], 1)


__all__ = ["NOTHING", "code_hashes", "update_context_minima", "update_row_minima", "winning_codes"]
