"""Sampled negatives: items that a user has never chosen."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from lma.errors import DataError
from lma.hashing import combine, hash_string, reduce_range, stream_seed

I64 = npt.NDArray[np.int64]

# Draws per negative before all items are looked through instead.
MOST_DRAWS: Final = 64


def sample_negatives(
    users: I64, items: I64, num_items: int, count: int, *, by_popularity: bool, seed: int
) -> I64:
    """For every positive, `count` different items that its user has no positive with.

    Args:
        users: User of each positive, int64 (positives,), from 0.
        items: Item of each positive, int64 (positives,), in [0, num_items).
        num_items: Number of items.
        count: Negatives per positive.
        by_popularity: Draw an item as often as it occurs among the positives, so that popularity
            alone does not tell negatives; else all items alike.
        seed: Seed; a draw is a hash of (seed, positive, negative, attempt).

    Returns:
        Items, int64 (positives, count).

    Raises:
        DataError: A user has positives with all but fewer than `count` items.
    """
    positives = np.unique(users * num_items + items)
    candidates = items if by_popularity else np.arange(num_items, dtype=np.int64)
    drawn = np.full((len(users), count), -1, np.int64)
    state = stream_seed(seed, hash_string("negatives"))
    for slot in range(count):
        pending = np.arange(len(users), dtype=np.int64)
        for attempt in range(MOST_DRAWS):
            if not len(pending):
                break
            draw = np.uint64(stream_seed(stream_seed(state, slot), attempt))
            choice = candidates[reduce_range(combine(draw, pending), len(candidates))]
            taken = _contains(positives, users[pending] * num_items + choice)
            taken |= (drawn[pending, :slot] == choice[:, None]).any(axis=1)
            drawn[pending[~taken], slot] = choice[~taken]
            pending = pending[taken]
        for row in pending.tolist():
            drawn[row, slot] = _any_other(
                positives, int(users[row]), num_items, drawn[row, :slot], state, row
            )
    return drawn


def _contains(ordered: I64, wanted: I64) -> npt.NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.asarray(ordered[place] == wanted)


def _any_other(
    positives: I64, user: int, num_items: int, already: I64, state: int, row: int
) -> int:
    """One of the items left to a user who has nearly all of them."""
    first, last = np.searchsorted(positives, [user * num_items, (user + 1) * num_items])
    own = positives[first:last] - user * num_items
    left = np.setdiff1d(np.arange(num_items, dtype=np.int64), np.concatenate([own, already]))
    if not len(left):
        raise DataError(
            f"a user has positives with {len(own):,} of {num_items:,} items, which leaves too "
            "few to sample negatives from"
        )
    place = combine(np.uint64(state), np.array([row], np.int64))
    return int(left[reduce_range(place, len(left))[0]])
