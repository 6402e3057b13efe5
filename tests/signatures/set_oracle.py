"""Min-hash by definition: Python sets and Python integers, nothing shared with the builder."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from lma.hashing import (
    combine_int,
    stream_seed,
    token_key,
)

STREAM_ELEMENT, STREAM_CODE, STREAM_LABEL = (1 << 20) - 1, (1 << 20) + 1, (1 << 20) + 2
MASK, MASK_32 = (1 << 64) - 1, (1 << 32) - 1


def element_sets(rows, labels, names, similarity, seed=0, fields=()):
    """Set of 64-bit elements of every token: {(table, id): set}.

    `rows[r][f]` is the bag (a list of ids) of feature f in row r. Where `fields` are named, the
    tokens of all others are met by nobody.
    """
    sets = defaultdict(set)
    for number, row in enumerate(rows):
        tokens = {(name, v) for name, bag in zip(names, row, strict=True) for v in bag}
        for token in tokens:
            sets[token] |= set()
            if similarity == "rows":
                sets[token].add(element_of(number, seed))
                continue
            if similarity == "positive_context" and labels[number] != 1:
                continue
            for other in tokens - {token}:
                if fields and other[0] not in fields:
                    continue
                if similarity == "labelled_context":
                    state = combine_int(stream_seed(seed, STREAM_LABEL), int(labels[number]))
                    sets[token].add(combine_int(state, token_key(*other) & MASK))
                else:
                    sets[token].add(element_of(token_key(*other) & MASK, seed))
    return sets


def element_of(value, seed=0):
    return combine_int(stream_seed(seed, STREAM_ELEMENT), value)


def hash_of(element, code, seed=0):
    """32-bit hash of an element under a code: upper half + multiplier * lower half."""
    multiplier = (stream_seed(seed, code) & 0xFFFFFF00) | code
    return ((element >> 32) + multiplier * (element & MASK_32)) & MASK_32


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


def expected_codes(elements, num_codes, code_bits, seed=0):
    """Codes of a token with a non-empty set."""
    winners = [min(hash_of(e, code, seed) for e in elements) for code in range(num_codes)]
    state = stream_seed(seed, STREAM_CODE)
    return [combine_int(state, winner) >> (64 - code_bits) for winner in winners]


def own_codes(table, token, num_codes, code_bits, seed=0):
    """Codes of a token without elements: hashes of its own key."""
    element = element_of(token_key(table, token) & MASK, seed)
    return expected_codes([element], num_codes, code_bits, seed)


def as_batch(rows, num_features):
    """Feature-major (values, offsets) of `rows`."""
    bags = [row[f] for f in range(num_features) for row in rows]
    lengths = [len(bag) for bag in bags]
    values = np.array([v for bag in bags for v in bag], dtype=np.int64)
    return values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def random_rows(rng, num_rows, sizes, longest):
    """Rows of bags: feature f has up to `longest[f]` values of [0, sizes[f]); 1 means one-hot."""
    return [
        [
            list(rng.integers(0, size, 1 if most == 1 else rng.integers(0, most + 1)))
            for size, most in zip(sizes, longest, strict=True)
        ]
        for _ in range(num_rows)
    ]
