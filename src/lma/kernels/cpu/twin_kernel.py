"""Tokens met again: an entry whose vector a thread has written copies it.

Frequent tokens occur many times in a batch. Hashing them and gathering their chunks again costs
more than copying the vector from the row of the output where it stands, their *twin*. Every thread
remembers, per feature, the last row of `MEMO` tokens at most; a token forgotten is computed again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.mix import kernel
from lma.kernels.cpu.prefetch import prefetch

MEMO = 512
_TOP = np.uint64(64 - 9)  # the bits of a hash that number `MEMO` tokens
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_LINE = 16


@kernel
def find_twins(
    ids: Any, features: Any, columns: Any, width: Any, out: Any, memo_ids: Any, memo_rows: Any,
    twins: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """twins[e - first] = batch row of an earlier entry of e's feature with e's id, or -1.

    Args:
        ids: int64 [entries], row after row.
        columns, width, out: Of the output, for its lines to be asked for.
        memo_ids: Tokens remembered, int64 [features * MEMO].
        memo_rows: Their rows, int32 [features * MEMO], -1 where there is none.
        twins: Written, int32 [last - first].
    """
    r = first // features
    f = first - r * features
    for e in range(first, last):
        token = ids[np.uint64(e)]
        at = np.uint64(f * MEMO) + ((np.uint64(token) * _FACTOR) >> _TOP)
        twin = memo_rows[at]
        if twin >= 0 and memo_ids[at] == token:
            place = np.int64(twin) * width
            for i in range(columns[np.uint64(f)], columns[np.uint64(f + 1)], _LINE):
                prefetch(out, place + i)
        else:
            memo_ids[at] = token
            memo_rows[at] = r
            twin = -1
        twins[np.uint64(e - first)] = twin
        f += 1
        if f == features:
            f = 0
            r += 1
