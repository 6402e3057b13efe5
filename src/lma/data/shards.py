"""Shards: Arrow IPC files of rows, laid out so that gathering random rows is fast.

A shard is one uncompressed record batch:

    ids         fixed_size_list<int32 or int64>[one-hot features]   absent if there are none
    dense       fixed_size_list<float>[dense columns]               absent if there are none
    label       uint8
    weight      float                                               absent if rows have none
    bag:NAME    large_list<int32 or int64>, one per multi-hot feature

Row-major matrices: a row's ids lie next to each other. Every shard of a split but the last has
`SHARD_ROWS` rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lma.data.column_hash import HashedRows, fill_rows
from lma.data.schema import Schema
from lma.errors import FormatError

SHARD_ROWS: Final = 1 << 17
# Rows transposed at once from columns to rows: the tile stays in cache.
_TILE_ROWS: Final = 512

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """The arrays of one shard, views of the mapped file.

    Attributes:
        ids: (rows, one-hot features).
        dense: float32 (rows, dense columns).
        labels: uint8 (rows,).
        weights: float32 (rows,), or `None`.
        bags: (values (total,), offsets int64 (rows + 1,)) per multi-hot feature, in order.
    """

    ids: Ids
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float32] | None
    bags: list[tuple[Ids, I64]]

    def __len__(self) -> int:
        return len(self.labels)

    def columns(self) -> HashedRows:
        """The shard's rows column by column, ids as int64."""
        tall = np.empty((self.ids.shape[1], len(self)), np.int64)
        for start in range(0, len(self), _TILE_ROWS):
            tall[:, start : start + _TILE_ROWS] = self.ids[start : start + _TILE_ROWS].T
        return HashedRows(
            list(tall),
            [(values.astype(np.int64), np.diff(offsets)) for values, offsets in self.bags],
            self.dense,
            self.labels.astype(np.float32),
            self.weights,
        )


class ShardWriter:
    """Collects the rows of one split and writes a file whenever a shard is full.

    A full shard is written by `pool` while the next one is filled; at most one waits.

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
        self._writing: Future[dict[str, Any]] | None = None
        self._pending = _Pending.empty(schema, id_type, SHARD_ROWS)
        self._spare: _Pending | None = None
        self._filled = 0
        self._shards = 0
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
        """Write the last shard, if there are rows left, and wait for all of them."""
        if self._filled:
            self._flush()
        self._wait()

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
        path = self._folder / f"{self._split}-{self._shards:05d}.arrow"
        self._writing = self._pool.submit(
            _write_shard, path, self._pending, self._filled, self._schema, self._id_type
        )
        self._shards += 1
        # The shard before this one is written, so its arrays are free again.
        free = self._spare or _Pending.empty(self._schema, self._id_type, SHARD_ROWS)
        self._spare, self._pending = self._pending, free
        for bag in free.bags:
            bag.clear()
        self._filled = 0

    def _wait(self) -> None:
        if self._writing is not None:
            self.files.append(self._writing.result())
            self._writing = None


@dataclass(frozen=True)
class _Pending:
    """The arrays of a shard that is being filled."""

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


def _write_shard(
    path: Path, pending: _Pending, rows: int, schema: Schema, id_type: type[Any]
) -> dict[str, Any]:
    """Write the first `rows` rows; what `meta.json` says about the file."""
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
    batch = pa.record_batch(columns)
    with pa.ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)
    return {
        "file": path.name,
        "rows": rows,
        "bytes": path.stat().st_size,
        "crc32": checksum(path),
    }


def open_shard(path: Path, schema: Schema) -> Shard:
    """Map a shard into memory.

    Raises:
        FormatError: The file is missing, damaged or has other columns.
    """
    import pyarrow as pa

    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        rows = batch.num_rows
        labels = batch.column("label").to_numpy()
        weights = batch.column("weight").to_numpy() if schema.weighted else None
        matrices = []
        for name, width in (("ids", len(schema.one_hot)), ("dense", len(schema.dense))):
            if width:
                flat = batch.column(name).values.to_numpy()
                matrices.append(flat.reshape(rows, width))
            else:
                matrices.append(np.zeros((rows, 0), np.int32 if name == "ids" else np.float32))
        bags = []
        for feature in schema.multi_hot:
            column = batch.column(f"bag:{feature.name}")
            bags.append((column.values.to_numpy(), column.offsets.to_numpy()))
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise FormatError(f"{path}: not a shard of this dataset: {error}") from None
    return Shard(matrices[0], matrices[1], labels, weights, bags)


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    for piece in file_pieces(path):
        crc = zlib.crc32(piece, crc)
    return crc


def file_pieces(path: Path, piece_bytes: int = 1 << 20) -> Iterator[bytes]:
    """A file's bytes, piece by piece."""
    with path.open("rb") as file:
        while piece := file.read(piece_bytes):
            yield piece
