"""Counts how often each token of one feature occurs, in bounded memory per distinct token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lma.data.column_hash import one_array

if TYPE_CHECKING:
    import pyarrow as pa

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_SMALLEST_MERGE = 1 << 16


class TokenCounter:
    """Support of the tokens of one feature, told by their 64-bit string hash.

    Keys and counts lie in two sorted runs (16 bytes per token), a large one and a recent one that
    is merged into it when it has grown to a quarter of it. The raw strings go to a file when a
    token is met for the first time.

    Args:
        values: File for the raw strings; `None` keeps none.
    """

    def __init__(self, values: Path | None = None) -> None:
        self._keys: U64 = np.zeros(0, np.uint64)
        self._counts: I64 = np.zeros(0, np.int64)
        self._recent_keys: U64 = np.zeros(0, np.uint64)
        self._recent_counts: I64 = np.zeros(0, np.int64)
        self._path = values
        self._writer: Any = None

    def __len__(self) -> int:
        return len(self._keys) + len(self._recent_keys)

    def update(
        self,
        ids: I64,
        strings: pa.Array | pa.ChunkedArray | Callable[[U64], pa.Array] | None = None,
        chosen: I64 | None = None,
    ) -> None:
        """Count the tokens of some rows.

        Args:
            ids: String hashes, int64 (n,).
            strings: The raw strings of the same n values, or what makes strings of hashes; needed
                where strings are kept.
            chosen: Numbers of those of the n values that count; `None` counts all.
        """
        counted = ids if chosen is None else ids[chosen]
        if not len(counted):
            return
        ordered = np.sort(counted.view(np.uint64))
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        keys, counts = ordered[starts], np.diff(starts, append=len(ordered))
        keys, counts = _add_known(self._keys, self._counts, keys, counts)
        keys, counts = _add_known(self._recent_keys, self._recent_counts, keys, counts)
        if not len(keys):
            return
        if self._path is not None and strings is not None:
            self._write_values(keys, ids, strings)
        self._recent_keys, self._recent_counts = _merge(
            self._recent_keys, self._recent_counts, keys, counts
        )
        if len(self._recent_keys) > max(_SMALLEST_MERGE, len(self._keys) // 4):
            self._merge_runs()

    def finish(self) -> tuple[U64, I64]:
        """Keys, ascending, and their counts."""
        self._merge_runs()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return self._keys, self._counts

    def read_values(self) -> tuple[I64, pa.LargeStringArray]:
        """Keys and raw strings of all tokens in order of first appearance, after `finish`."""
        import pyarrow as pa

        if self._path is None or not self._path.exists():
            return np.zeros(0, np.int64), pa.array([], pa.large_string())
        with pa.memory_map(str(self._path)) as source:
            table = pa.ipc.open_stream(source).read_all()
        return table.column("key").to_numpy(), one_array(table.column("value"))

    def _merge_runs(self) -> None:
        self._keys, self._counts = _merge(
            self._keys, self._counts, self._recent_keys, self._recent_counts
        )
        self._recent_keys, self._recent_counts = self._keys[:0], self._counts[:0]

    def _write_values(self, new: U64, ids: I64, strings: Any) -> None:
        """Append the strings of the keys `new`, from any row (counted or not) that holds each."""
        import pyarrow as pa

        if callable(strings):
            self._append(new, strings(new))
            return
        wanted = ids.view(np.uint64)
        position = np.minimum(np.searchsorted(new, wanted), len(new) - 1)
        (rows,) = np.nonzero(new[position] == wanted)
        row_of = np.empty(len(new), np.int64)
        row_of[position[rows]] = rows
        values = one_array(strings).take(pa.array(row_of)).cast(pa.large_string())
        self._append(new, values.fill_null(""))

    def _append(self, new: U64, values: pa.LargeStringArray) -> None:
        import pyarrow as pa

        batch = pa.record_batch({"key": pa.array(new.view(np.int64)), "value": values})
        if self._writer is None:
            self._writer = pa.ipc.new_stream(str(self._path), batch.schema)
        self._writer.write_batch(batch)


def _add_known(known: U64, totals: I64, keys: U64, counts: I64) -> tuple[U64, I64]:
    """Add the counts of keys in `known` to `totals`; return those that are not."""
    if not len(known) or not len(keys):
        return keys, counts
    position = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    hit = known[position] == keys
    totals[position[hit]] += counts[hit]
    return keys[~hit], counts[~hit]


def _merge(keys_a: U64, counts_a: I64, keys_b: U64, counts_b: I64) -> tuple[U64, I64]:
    """Two sorted runs without common keys as one."""
    if not len(keys_b):
        return keys_a, counts_a
    if not len(keys_a):
        return keys_b, counts_b
    keys = np.concatenate([keys_a, keys_b])
    # Stable sorts find the two runs and merge them in linear time.
    order = np.argsort(keys, kind="stable")
    return keys[order], np.concatenate([counts_a, counts_b])[order]
