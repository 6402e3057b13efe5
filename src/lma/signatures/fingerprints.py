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

from lma.kernels.reference.addresses import LANES

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

LOAD = 0.95  # lanes in use; two choices of eight lanes can fill 98 %


@dataclasses.dataclass(frozen=True)
class FingerprintIndex:
    """Where each of n keys has its signature.

    Attributes:
        fingerprints: int16 [buckets, 8].
        overflow_keys: int64 [m], ascending.
        slots: Slot of every key, int64 [n]; overflow slots follow the lanes.
    """

    fingerprints: npt.NDArray[np.int16]
    overflow_keys: I64
    slots: I64

    @classmethod
    def build(cls, keys: npt.NDArray[Any], load: float = LOAD) -> FingerprintIndex:
        """Index token keys.

        Args:
            keys: 64-bit keys, all different, [n]; their order does not matter for what is found.
            load: Share of lanes to fill, at most 0.97.

        Raises:
            ValueError: Keys repeat, or the load is out of range.
        """
        from lma.kernels.cpu.signatures_cuckoo import first_matches, place, write_fingerprints

        if not 0 < load <= 0.97:
            raise ValueError(f"FingerprintIndex: load must be in (0, 0.97], found {load}")
        unsigned = np.ascontiguousarray(keys).view(np.uint64)
        ordered = np.sort(unsigned)
        if np.any(ordered[1:] == ordered[:-1]):
            raise ValueError("FingerprintIndex: keys must be all different; some repeat")
        del ordered
        buckets = int(np.ceil(len(unsigned) / (LANES * load)))
        holders = np.full(buckets * LANES, -1, np.int32)
        place(unsigned, buckets, holders)
        fingerprints = np.empty(len(holders), np.int16)
        lanes = np.empty(len(unsigned), np.int64)
        write_fingerprints(unsigned, holders, fingerprints)
        first_matches(unsigned, buckets, fingerprints, lanes)
        # Exact are the keys whose lookup ends in their own lane; the last entry is for no key.
        exact = np.ones(len(unsigned) + 1, np.bool_)
        number = np.arange(len(unsigned), dtype=np.int32)
        exact[:-1] = (lanes >= 0) & (holders[lanes] == number)
        holders[~exact[holders]] = -1
        # Emptying lanes takes matches away and adds none, so exact keys stay exact.
        write_fingerprints(unsigned, holders, fingerprints)
        rest = np.nonzero(~exact[:-1])[0]
        rest = rest[np.argsort(unsigned[rest].view(np.int64), kind="stable")]
        lanes[rest] = len(holders) + np.arange(len(rest))
        return cls(
            fingerprints.reshape(buckets, LANES), unsigned[rest].view(np.int64).copy(), lanes
        )


__all__ = ["FingerprintIndex"]
