"""Criteo's lines compiled: from bytes to numbers and hashed ids in one step.

Parsing a block with polars and hashing its columns takes several passes over the data; this takes
one, some three times as fast. It accepts good blocks only. A block with any fault is parsed again
by the readable code in `lma.data.criteo`, which names the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lma.data.column_hash import HashedRows
from lma.data.dense import small_log1p, transform
from lma.hashing import GOLDEN, MIX_1, MIX_2, mix64_int, token_ids

if TYPE_CHECKING:
    import pyarrow as pa

NUM_INTEGERS: Final = 13
NUM_CATEGORIES: Final = 26

_IS_HEX: Final = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdefABCDEF", np.uint8))
_STATE_8: Final = np.uint64(mix64_int(8))
_EMPTY: Final = np.uint64(mix64_int(0))


def parse_block(data: bytes, lines: int) -> HashedRows | None:
    """The rows of a block of labelled lines, or `None` if anything in it is wrong.

    Args:
        data: Whole lines, the last one ended too.
        lines: Their number.
    """
    ids = np.empty((lines, NUM_CATEGORIES), np.uint64)
    integers = np.empty((lines, NUM_INTEGERS), np.int64)
    dense = np.empty((lines, 2 * NUM_INTEGERS), np.float32)
    labels = np.empty(lines, np.float32)
    table = small_log1p()
    view = np.frombuffer(data, np.uint8)
    if not _compiled()(view, ids, integers, dense, labels, table, _IS_HEX):
        return None
    row, column = np.nonzero(integers >= len(table))
    dense[row, column] = transform(integers[row, column].astype(np.float64), "log1p")
    return HashedRows.of_matrix(ids.view(np.int64), dense, labels)


def texts_of_hashes(keys: npt.NDArray[np.uint64]) -> pa.LargeStringArray:
    """The strings of 8 bytes, or empty, with these hashes: on them the hash is a bijection."""
    import pyarrow as pa

    # `token_ids` with salt 0 undoes the mix, but for a factor.
    golden = np.uint64(GOLDEN)
    unmixed = token_ids(np.uint64(0), keys).view(np.uint64) * golden
    words = (unmixed - golden) ^ _STATE_8
    empty = keys == _EMPTY
    offsets = np.zeros(len(keys) + 1, np.int64)
    np.cumsum(np.where(empty, 0, 8), out=offsets[1:])
    data = words[~empty].astype("<u8")
    return pa.LargeStringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(data))


@cache
def _compiled() -> Callable[..., bool]:
    import numba

    try:
        compiled: Callable[..., bool] = numba.njit(nogil=True, cache=True)(_parse)
    except RuntimeError:
        # Numba finds no folder it may write its cache to.
        compiled = numba.njit(nogil=True)(_parse)
    return compiled


def _parse(
    data: Any, ids: Any, integers: Any, dense: Any, labels: Any, table: Any, is_hex: Any
) -> bool:
    """Fill the arrays; false at the first line that is not as it should be."""
    at = 0
    size = len(data)
    for row in range(len(labels)):
        # The shortest line has a digit, 39 tabs and its end.
        if at + 41 > size:
            return False
        if (data[at] != 48 and data[at] != 49) or data[at + 1] != 9:
            return False
        labels[row] = data[at] - 48
        at += 2
        for column in range(NUM_INTEGERS):
            negative = data[at] == 45
            if negative:
                at += 1
            value, start = 0, at
            # The block's last byte is a line end, which stops this loop.
            while 48 <= data[at] <= 57:
                value = value * 10 + (data[at] - 48)
                at += 1
            digits = at - start
            # Nineteen digits may not fit in 64 bits: left to the careful code.
            if data[at] != 9 or digits > 18 or (negative and digits == 0):
                return False
            at += 1
            if negative:
                value = 0
            integers[row, column] = value
            dense[row, column] = table[min(value, len(table) - 1)]
            dense[row, NUM_INTEGERS + column] = digits == 0
        for column in range(NUM_CATEGORIES):
            end = 10 if column == NUM_CATEGORIES - 1 else 9
            if at >= size:
                return False
            if data[at] == end:
                ids[row, column] = _EMPTY
                at += 1
                continue
            if at + 9 > size or data[at + 8] != end:
                return False
            word = np.uint64(0)
            for k in range(8):
                byte = data[at + k]
                if not is_hex[byte]:
                    return False
                word |= np.uint64(byte) << np.uint64(8 * k)
            # `lma.hashing.combine(mix64(8), word)`.
            h = (word ^ _STATE_8) + np.uint64(GOLDEN)
            h = (h ^ (h >> np.uint64(30))) * np.uint64(MIX_1)
            h = (h ^ (h >> np.uint64(27))) * np.uint64(MIX_2)
            ids[row, column] = h ^ (h >> np.uint64(31))
            at += 9
    return at == size
