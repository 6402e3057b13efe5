"""Inserting scores into a HotSketch, one after the other (Zhang et al. 2024, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu import mix
from lma.kernels.cpu.mix import combine, reduce_range

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint


@kernel
def insert(tokens, scores, seed, keys, sums, hot):  # type: ignore[no-untyped-def]
    """SpaceSaving (Metwally et al. 2005) within the bucket that a token hashes to.

    A token that has a slot adds to it; another one takes over the slot of least sum, sum
    included, unless that slot's token is hot.

    Args:
        tokens: int64 [n].
        scores: float32 [n], >= 0.
        seed: State of the hash function, uint64.
        keys: Tokens of the slots, int64 [buckets, slots], -1 where empty; written.
        sums: Their scores, float32 [buckets, slots]; written.
        hot: Whether a slot's token may not be evicted, bool [buckets, slots].
    """
    buckets, slots = keys.shape
    for i in range(len(tokens)):
        token = tokens[i]
        bucket = reduce_range(combine(seed, np.uint64(token)), np.uint64(buckets))
        place = 0
        for slot in range(slots):
            if keys[bucket, slot] == token:
                place = slot
                break
            if sums[bucket, slot] < sums[bucket, place]:
                place = slot
        if keys[bucket, place] == token:
            sums[bucket, place] += scores[i]
        elif not hot[bucket, place]:
            keys[bucket, place] = token
            sums[bucket, place] += scores[i]


__all__ = ["insert"]
