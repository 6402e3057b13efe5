"""Writing shards; their layout is described in `lma.data.shards`."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lma.data import shards
from lma.data.column_hash import HashedRows, fill_rows
from lma.data.schema import Schema
from lma.data.shards import I64, Ids

if TYPE_CHECKING:
    import pyarrow as pa


class ShardWriter:
    """Collects the rows of one split and writes them group by group.

    A full group is written by `pool` while the next one is filled; at most one waits.

    Args:
        folder: Where the files go.
        split: Their names' beginning.
        schema: The columns.
        id_type: `np.int32` or `np.int64`.
        pool: Runs the writing.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        schema: Schema,
        id_type: type[np.int32] | type[np.int64],
        pool: Executor,
    ) -> None:
        self._folder, self._split, self._schema = folder, split, schema
        self._id_type = id_type
        self._pool = pool
        self._writing: Future[None] | None = None
        self._pending = _Pending.empty(schema, id_type, shards.GROUP_ROWS)
        self._file: _ShardFile | None = None
        self._groups = 0
        self._spare: _Pending | None = None
        self._filled = 0
        self.rows = 0
        self.positives = 0
        self.files: list[dict[str, Any]] = []

    def append(self, rows: HashedRows, chosen: I64 | None = None) -> None:
        """Add rows, whose labels are 0 or 1.

        Args:
            rows: Rows column by column.
            chosen: Numbers of the rows to add, ascending; `None` adds all.
        """
        starts = [np.concatenate([[0], np.cumsum(lengths)]) for _, lengths in rows.bags]
        total = len(rows) if chosen is None else len(chosen)
        done = 0
        while done < total:
            room = len(self._pending.labels) - self._filled
            count = min(room, total - done)
            part = slice(done, done + count) if chosen is None else chosen[done : done + count]
            self._fill(rows, part, count, starts)
            done += count
            if self._filled == len(self._pending.labels):
                self._flush()

    def close(self) -> None:
        """Write the last group, if there are rows left, and end the last file."""
        if self._filled:
            self._flush()
        self._end_file()

    def _fill(self, rows: HashedRows, part: slice | I64, count: int, starts: list[I64]) -> None:
        begin, end = self._filled, self._filled + count
        pending = self._pending
        if isinstance(part, slice):
            fill_rows(pending.ids, rows.one_hot, part.start, part.stop, begin)
            pending.dense[begin:end] = rows.dense[part]
        else:
            # `clip` keeps `take` from copying twice; all numbers are in range.
            np.take(rows.matrix, part, axis=0, out=pending.ids[begin:end], mode="clip")
            np.take(rows.dense, part, axis=0, out=pending.dense[begin:end], mode="clip")
        pending.labels[begin:end] = rows.labels[part]
        if pending.weights is not None and rows.weights is not None:
            pending.weights[begin:end] = rows.weights[part]
        for bag, (values, lengths), start in zip(pending.bags, rows.bags, starts, strict=True):
            bag.append((values[_bag_places(start, part)], lengths[part]))
        self.positives += int(pending.labels[begin:end].sum())
        self.rows += count
        self._filled = end

    def _flush(self) -> None:
        self._wait()
        if self._file is None:
            path = self._folder / f"{self._split}-{len(self.files):05d}.arrow"
            self._file = _ShardFile(path, self._schema, self._id_type)
        self._writing = self._pool.submit(self._file.write, self._pending, self._filled)
        # The group before this one is written, so its arrays are free again.
        free = self._spare or _Pending.empty(self._schema, self._id_type, shards.GROUP_ROWS)
        self._spare, self._pending = self._pending, free
        for bag in free.bags:
            bag.clear()
        self._filled = 0
        self._groups += 1
        if self._groups == shards.SHARD_GROUPS:
            self._end_file()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _end_file(self) -> None:
        self._wait()
        if self._file is not None:
            self.files.append(self._file.close())
            self._file, self._groups = None, 0


@dataclass(frozen=True)
class _Pending:
    """The arrays of a row group that is being filled."""

    ids: Ids
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float32] | None
    bags: list[list[tuple[I64, I64]]]

    @classmethod
    def empty(cls, schema: Schema, id_type: type[np.int32] | type[np.int64], rows: int) -> _Pending:
        ids: Any = np.empty((rows, len(schema.one_hot)), id_type)
        return cls(
            ids,
            np.empty((rows, len(schema.dense)), np.float32),
            np.empty(rows, np.uint8),
            np.empty(rows, np.float32) if schema.weighted else None,
            [[] for _ in schema.multi_hot],
        )


def _bag_places(start: I64, part: slice | I64) -> slice | I64:
    """Where the values of some rows' bags lie, `start` being the first place of every row's."""
    if isinstance(part, slice):
        return slice(int(start[part.start]), int(start[part.stop]))
    lengths = start[part + 1] - start[part]
    ends = np.cumsum(lengths)
    within = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    return np.asarray(np.repeat(start[part], lengths) + within, np.int64)


class _ShardFile:
    """A shard being written."""

    def __init__(self, path: Path, schema: Schema, id_type: type[Any]) -> None:
        self._path, self._schema, self._id_type = path, schema, id_type
        self._writer: Any = None
        self._rows = 0

    def write(self, pending: _Pending, rows: int) -> None:
        """Add the first `rows` rows as a row group."""
        import pyarrow as pa

        batch = pa.record_batch(_columns(pending, rows, self._schema, self._id_type))
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), batch.schema)
        self._writer.write_batch(batch)
        self._rows += rows

    def close(self) -> dict[str, Any]:
        """End the file; what `meta.json` says about it."""
        self._writer.close()
        return {
            "file": self._path.name,
            "rows": self._rows,
            "bytes": self._path.stat().st_size,
            "crc32": shards.checksum(self._path),
        }


def _columns(
    pending: _Pending, rows: int, schema: Schema, id_type: type[Any]
) -> dict[str, pa.Array]:
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    for name, matrix in (("ids", pending.ids), ("dense", pending.dense)):
        if matrix.shape[1]:
            flat = pa.array(matrix[:rows].reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    columns["label"] = pa.array(pending.labels[:rows])
    if pending.weights is not None:
        columns["weight"] = pa.array(pending.weights[:rows])
    for feature, bag in zip(schema.multi_hot, pending.bags, strict=True):
        offsets = np.zeros(rows + 1, np.int64)
        np.cumsum(np.concatenate([lengths for _, lengths in bag]), out=offsets[1:])
        values = np.concatenate([values for values, _ in bag]).astype(id_type)
        columns[f"bag:{feature.name}"] = pa.LargeListArray.from_arrays(
            pa.array(offsets), pa.array(values)
        )
    return columns
