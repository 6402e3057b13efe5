"""Building the cuckoo index of 16-bit fingerprints that `reference.addresses` reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu import mix
from lma.kernels.cpu.mix import mix64, reduce_range
from lma.kernels.reference.addresses import LANES, SECOND_BUCKET

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint

MOST_MOVES = 2000  # evictions after which a key is given up; at load 0.95 about ten are usual
_LANES = LANES
_SECOND = np.uint64(SECOND_BUCKET)
_LOW, _ONE = np.uint64(0xFFFF), np.uint64(1)


@kernel
def place(keys, num_buckets, holders):  # type: ignore[no-untyped-def]
    """Give every key a lane of one of its two buckets, moving others aside.

    Args:
        keys: uint64 [n], all different.
        num_buckets: Buckets.
        holders: int32 [num_buckets * 8], number of the key in each lane, -1 when empty; written.

    Returns:
        Keys left without a lane.
    """
    size = np.uint64(num_buckets)
    homeless = 0
    for first in range(len(keys)):
        number: Any = np.int64(first)
        bucket = np.int64(reduce_range(keys[number], size))
        for move in range(MOST_MOVES + 1):
            one = np.int64(reduce_range(keys[number], size))
            two = np.int64(reduce_range(mix64(keys[number] ^ _SECOND), size))
            lane: Any = np.int64(-1)
            for start in (one * _LANES, two * _LANES):
                for at in range(start, start + _LANES):
                    if lane < 0 and holders[at] < 0:
                        lane = at
            if lane >= 0:
                holders[lane] = number
                number = -1
                break
            if move == MOST_MOVES:
                break
            # Evict from the bucket the key did not just come from; which lane is a hash, so that
            # walks do not run in circles and repeat on every machine.
            bucket = two if bucket == one else one
            draw = mix64(keys[number] ^ np.uint64(move))
            lane = bucket * _LANES + np.int64(draw & np.uint64(_LANES - 1))
            evicted = np.int64(holders[lane])
            holders[lane] = number
            number = evicted
        if number >= 0:
            homeless += 1
    return homeless


@kernel
def write_fingerprints(keys, holders, fingerprints):  # type: ignore[no-untyped-def]
    """fingerprints[lane] of the key each lane holds, 0 when empty; int16."""
    for lane in range(len(holders)):
        fingerprints[lane] = 0
        if holders[lane] >= 0:
            low = keys[holders[lane]] & _LOW
            fingerprints[lane] = np.int16(_ONE if low == 0 else low)


@kernel
def first_matches(keys, num_buckets, fingerprints, lanes):  # type: ignore[no-untyped-def]
    """The lane that a lookup of each key finds by fingerprint alone, or -1; int64."""
    size = np.uint64(num_buckets)
    for i in range(len(keys)):
        low = keys[i] & _LOW
        wanted = np.int16(_ONE if low == 0 else low)
        one = np.int64(reduce_range(keys[i], size))
        two = np.int64(reduce_range(mix64(keys[i] ^ _SECOND), size))
        lanes[i] = -1
        for start in (one * _LANES, two * _LANES):
            for at in range(start, start + _LANES):
                if lanes[i] < 0 and fingerprints[at] == wanted:
                    lanes[i] = at


__all__ = ["first_matches", "place", "write_fingerprints"]
