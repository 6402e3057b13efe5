"""Min-hash by definition: Python sets and Python integers, nothing shared with the builder."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from lma.hashing import (
    combine_int,
    mix64_int,
    stream_seed,
    table_salt,
    token_key,
)

GOLDEN_LABEL, GOLDEN_CODE = (1 << 20) + 2, (1 << 20) + 1
MASK = (1 << 64) - 1


def element_sets(rows, labels, names, similarity, seed=0):
    """Set of 64-bit elements of every token: {(table, id): set}.

    `rows[r][f]` is the bag (a list of ids) of feature f in row r.
    """
    sets = defaultdict(set)
    for number, row in enumerate(rows):
        tokens = {(name, v) for name, bag in zip(names, row, strict=True) for v in bag}
        for token in tokens:
            sets[token] |= set()
            if similarity == "rows":
                sets[token].add(mix64_int(number))
                continue
            if similarity == "positive_context" and labels[number] != 1:
                continue
            for other in tokens - {token}:
                element = token_key(*other) & MASK
                if similarity == "labelled_context":
                    state = combine_int(stream_seed(seed, GOLDEN_LABEL), int(labels[number]))
                    element = combine_int(state, element)
                sets[token].add(element)
    return sets


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


def expected_codes(elements, num_codes, code_bits, seed=0):
    """Codes of a token with a non-empty set."""
    code_state = stream_seed(seed, GOLDEN_CODE)
    codes = []
    for code in range(num_codes):
        state = stream_seed(seed, code)
        winner = min(combine_int(state, element) for element in elements)
        codes.append(combine_int(code_state, winner) >> (64 - code_bits))
    return codes


def own_codes(table, token, num_codes, code_bits, seed=0):
    """Codes of a token without elements: hashes of its own key."""
    assert table_salt(table) >= 0
    return expected_codes([token_key(table, token) & MASK], num_codes, code_bits, seed)


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
