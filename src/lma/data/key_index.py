"""Finding many 64-bit hash keys among many others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class KeyIndex:
    """Positions of keys in a sorted array, in about one memory access each.

    The keys are hashes, so their upper bits spread evenly: they say in which of about as many
    buckets as there are keys a key can be, and a bucket holds one key on average.

    Args:
        keys: uint64 (n,), ascending and distinct.
    """

    def __init__(self, keys: U64) -> None:
        self._keys = keys
        bits = max(1, len(keys).bit_length())
        self._shift = np.uint64(64 - bits)
        counts = np.bincount((keys >> self._shift).view(np.int64), minlength=1 << bits)
        dtype = np.int32 if len(keys) < 2**31 else np.int64
        self._starts: npt.NDArray[Any] = np.zeros((1 << bits) + 1, dtype)
        np.cumsum(counts, out=self._starts[1:])

    def find(self, keys: npt.NDArray[np.int64] | U64) -> I64:
        """Position of each key, int64 (m,), or -1 where it is absent."""
        wanted = keys.view(np.uint64)
        bucket = (wanted >> self._shift).view(np.int64)
        position = self._starts[bucket].astype(np.int64)
        end = self._starts[1:][bucket]
        found = np.full(len(wanted), -1, np.int64)
        (alive,) = np.nonzero(position < end)
        position, end, wanted = position[alive], end[alive], wanted[alive]
        while len(alive):
            here = self._keys[position]
            hit = here == wanted
            found[alive[hit]] = position[hit]
            on = ~hit
            on &= here < wanted
            position += 1
            on &= position < end
            alive, position, end, wanted = alive[on], position[on], end[on], wanted[on]
        return found
