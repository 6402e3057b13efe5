"""Building the cuckoo index of 16-bit fingerprints that `reference.addresses` reads.

Token keys are made of the ids as they are needed: an array of them would be the peak of memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu import mix
from lma.kernels.cpu.mix import mix64, reduce_range, token_key
from lma.kernels.reference.addresses import LANES, SECOND_BUCKET

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint

MOST_MOVES = 2000  # evictions after which a key is given up; at load 0.95 about ten are usual
_LANES = LANES
_SECOND = np.uint64(SECOND_BUCKET)
_LOW, _ONE = np.uint64(0xFFFF), np.uint64(1)


@kernel
def place(salt, ids, num_buckets, holders):  # type: ignore[no-untyped-def]
    """Give every key a lane of one of its two buckets, moving others aside.

    Args:
        salt: Of the table, uint64.
        ids: int64 [n], all different.
        num_buckets: Buckets.
        holders: int32 [num_buckets * 8], number of the key in each lane, -1 when empty; written.

    Returns:
        Keys left without a lane.
    """
    size = np.uint64(num_buckets)
    homeless = 0
    for first in range(len(ids)):
        number: Any = np.int64(first)
        bucket = np.int64(reduce_range(token_key(salt, np.uint64(ids[number])), size))
        for move in range(MOST_MOVES + 1):
            key = token_key(salt, np.uint64(ids[number]))
            one = np.int64(reduce_range(key, size))
            two = np.int64(reduce_range(mix64(key ^ _SECOND), size))
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
            draw = mix64(key ^ np.uint64(move))
            lane = bucket * _LANES + np.int64(draw & np.uint64(_LANES - 1))
            evicted = np.int64(holders[lane])
            holders[lane] = number
            number = evicted
        if number >= 0:
            homeless += 1
    return homeless


@kernel
def write_fingerprints(salt, ids, holders, fingerprints):  # type: ignore[no-untyped-def]
    """fingerprints[lane] of the key each lane holds, 0 when empty; int16."""
    for lane in range(len(holders)):
        fingerprints[lane] = 0
        if holders[lane] >= 0:
            low = token_key(salt, np.uint64(ids[holders[lane]])) & _LOW
            fingerprints[lane] = np.int16(_ONE if low == 0 else low)


@kernel
def first_matches(salt, ids, num_buckets, fingerprints, lanes):  # type: ignore[no-untyped-def]
    """The lane that a lookup of each key finds by fingerprint alone, or -1; [n]."""
    size = np.uint64(num_buckets)
    for i in range(len(ids)):
        key = token_key(salt, np.uint64(ids[i]))
        low = key & _LOW
        wanted = np.int16(_ONE if low == 0 else low)
        one = np.int64(reduce_range(key, size))
        two = np.int64(reduce_range(mix64(key ^ _SECOND), size))
        lanes[i] = -1
        for start in (one * _LANES, two * _LANES):
            for at in range(start, start + _LANES):
                if lanes[i] < 0 and fingerprints[at] == wanted:
                    lanes[i] = at


@kernel
def keep_exact(holders, lanes, lost):  # type: ignore[no-untyped-def]
    """Empty the lanes of keys that a lookup finds elsewhere, whose numbers go to `lost`.

    Args:
        holders: As `place` left them; changed.
        lanes: Of `first_matches`.
        lost: int64 [m], written as far as it goes.

    Returns:
        How many keys are found elsewhere, or not at all.
    """
    for lane in range(len(holders)):
        if holders[lane] >= 0 and lanes[holders[lane]] != lane:
            holders[lane] = -1
    count = 0
    for i in range(len(lanes)):
        if lanes[i] < 0 or holders[lanes[i]] != i:
            if count < len(lost):
                lost[count] = i
            count += 1
    return count


__all__ = ["first_matches", "keep_exact", "place", "write_fingerprints"]
