"""The `fingerprint` index: about two bytes per signature find it by token key.

A key lies in one of two buckets of eight lanes (cuckoo filter, Fan et al. 2014), as 16 of its
bits. Signed tokens are all found exactly: a key that another signed key's fingerprint would hide
stands with its 64 bits in an overflow list. An unsigned token is mistaken for a signed one with
probability of at most 16 load / 65535, below 0.025 %; it then reads that token's codes instead of
a plain hash, which is harmless.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from lma.hashing import token_ids, token_keys
from lma.kernels.reference.addresses import LANES

I64 = npt.NDArray[np.int64]

LOAD = 0.95  # lanes in use; two choices of eight lanes can fill 98 %


@dataclasses.dataclass(frozen=True)
class FingerprintIndex:
    """Where each of n keys has its signature.

    Attributes:
        fingerprints: int16 [buckets, 8].
        overflow_keys: int64 [m], ascending.
        slots: Slot of every key, [n]; overflow slots follow the lanes. int32 where that holds
            them, else int64.
    """

    fingerprints: npt.NDArray[np.int16]
    overflow_keys: I64
    slots: npt.NDArray[Any]

    @classmethod
    def build(cls, keys: npt.NDArray[Any], load: float = LOAD) -> FingerprintIndex:
        """Index token keys.

        Args:
            keys: 64-bit keys, all different, [n]; their order does not matter for what is found.
            load: Share of lanes to fill, at most 0.97.

        Raises:
            ValueError: Keys repeat, or the load is out of range.
        """
        unsigned = np.ascontiguousarray(keys).view(np.uint64)
        ordered = np.sort(unsigned)
        if np.any(ordered[1:] == ordered[:-1]):
            raise ValueError("FingerprintIndex: keys must be all different; some repeat")
        # Keys are a bijection of ids.
        return cls.of_tokens(0, token_ids(np.uint64(0), unsigned), load)

    @classmethod
    def of_tokens(cls, salt: int, ids: I64, load: float = LOAD) -> FingerprintIndex:
        """Index tokens of a table by their keys.

        Args:
            salt: The table's (`hashing.table_salt`).
            ids: int64 [n], all different.
            load: Share of lanes to fill, at most 0.97.

        Raises:
            ValueError: An id is there twice.

        Memory: 11 bytes per token beside the ids while building, 6 of them in the result.
        """
        from lma.kernels.cpu.signatures_cuckoo import (
            first_matches,
            keep_exact,
            place,
            write_fingerprints,
        )

        if not 0 < load <= 0.97:
            raise ValueError(f"FingerprintIndex: load must be in (0, 0.97], found {load}")
        mix = np.uint64(salt)
        buckets = int(np.ceil(len(ids) / (LANES * load)))
        holders = np.full(buckets * LANES, -1, np.int32)
        place(mix, ids, buckets, holders)
        fingerprints = np.empty(len(holders), np.int16)
        write_fingerprints(mix, ids, holders, fingerprints)
        largest = np.iinfo(np.int32).max
        lanes = np.empty(len(ids), np.int32 if len(holders) + len(ids) <= largest else np.int64)
        first_matches(mix, ids, buckets, fingerprints, lanes)
        # Exact are the keys whose lookup ends in their own lane.
        lost = np.empty(keep_exact(holders, lanes, np.empty(0, np.int64)), np.int64)
        keep_exact(holders, lanes, lost)
        found = np.asarray(lanes[lost], np.int64)
        kept = np.where(found < 0, -1, holders[found])
        repeated = ids[lost[kept >= 0]] == ids[kept[kept >= 0]]
        # Emptying lanes takes matches away and adds none, so exact keys stay exact.
        write_fingerprints(mix, ids, holders, fingerprints)
        keys = token_keys(mix, ids[lost]).view(np.int64)
        order = np.argsort(keys, kind="stable")
        if repeated.any() or (keys[order][1:] == keys[order][:-1]).any():
            raise ValueError("FingerprintIndex: ids must be all different")
        lanes[lost[order]] = len(holders) + np.arange(len(lost))
        return cls(fingerprints.reshape(buckets, LANES), keys[order], lanes)


__all__ = ["FingerprintIndex"]
