"""Shards: Arrow IPC files of rows, laid out so that gathering random rows is fast.

A shard is one uncompressed record batch:

    ids         fixed_size_list<int32 or int64>[one-hot features]   absent if there are none
    dense       fixed_size_list<float>[dense columns]               absent if there are none
    label       uint8
    bag:NAME    large_list<int32 or int64>, one per multi-hot feature

Row-major matrices: a row's ids lie next to each other. Every shard of a split but the last has
`SHARD_ROWS` rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lma.data.column_hash import HashedRows
from lma.data.schema import Schema
from lma.errors import FormatError

SHARD_ROWS: Final = 1 << 17
# Rows transposed at once from columns to rows: the tile stays in cache.
_TILE_ROWS: Final = 2048

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """The arrays of one shard, views of the mapped file.

    Attributes:
        ids: (rows, one-hot features).
        dense: float32 (rows, dense columns).
        labels: uint8 (rows,).
        bags: (values (total,), offsets int64 (rows + 1,)) per multi-hot feature, in order.
    """

    ids: Ids
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
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
        )


class ShardWriter:
    """Collects the rows of one split and writes a file whenever a shard is full.

    Args:
        folder: Where the files go.
        split: Their names' beginning.
        schema: The columns.
        id_type: `np.int32` or `np.int64`.
        shard_rows: Rows per file.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        schema: Schema,
        id_type: type[np.int32] | type[np.int64],
        shard_rows: int = SHARD_ROWS,
    ) -> None:
        self._folder, self._split, self._schema = folder, split, schema
        self._shard_rows = shard_rows
        self._id_type = id_type
        self._ids = np.empty((shard_rows, len(schema.one_hot)), id_type)
        self._dense = np.empty((shard_rows, len(schema.dense)), np.float32)
        self._labels = np.empty(shard_rows, np.uint8)
        self._bags: list[list[tuple[I64, I64]]] = [[] for _ in schema.multi_hot]
        self._filled = 0
        self.rows = 0
        self.positives = 0
        self.files: list[dict[str, Any]] = []

    def append(self, rows: HashedRows) -> None:
        """Add rows, whose labels are 0 or 1."""
        starts = [np.concatenate([[0], np.cumsum(lengths)]) for _, lengths in rows.bags]
        done = 0
        while done < len(rows):
            count = min(self._shard_rows - self._filled, len(rows) - done)
            end = self._filled + count
            for tile in range(0, count, _TILE_ROWS):
                stop = min(tile + _TILE_ROWS, count)
                for f, ids in enumerate(rows.one_hot):
                    self._ids[self._filled + tile : self._filled + stop, f] = ids[
                        done + tile : done + stop
                    ]
            self._dense[self._filled : end] = rows.dense[done : done + count]
            self._labels[self._filled : end] = rows.labels[done : done + count]
            for bag, (values, lengths), start in zip(self._bags, rows.bags, starts, strict=True):
                bag.append(
                    (
                        values[start[done] : start[done + count]],
                        lengths[done : done + count],
                    )
                )
            self._filled, done = end, done + count
            if self._filled == self._shard_rows:
                self._flush()

    def close(self) -> None:
        """Write the last shard, if there are rows left."""
        if self._filled:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        count = self._filled
        columns: dict[str, pa.Array] = {}
        for name, matrix in (("ids", self._ids), ("dense", self._dense)):
            if matrix.shape[1]:
                flat = pa.array(matrix[:count].reshape(-1))
                columns[name] = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
        columns["label"] = pa.array(self._labels[:count])
        for feature, bag in zip(self._schema.multi_hot, self._bags, strict=True):
            offsets = np.zeros(count + 1, np.int64)
            np.cumsum(np.concatenate([lengths for _, lengths in bag]), out=offsets[1:])
            values = np.concatenate([values for values, _ in bag]).astype(self._id_type)
            columns[f"bag:{feature.name}"] = pa.LargeListArray.from_arrays(
                pa.array(offsets), pa.array(values)
            )
            bag.clear()
        name = f"{self._split}-{len(self.files):05d}.arrow"
        path = self._folder / name
        batch = pa.record_batch(columns)
        with pa.ipc.new_file(str(path), batch.schema) as writer:
            writer.write_batch(batch)
        self.files.append(
            {
                "file": name,
                "rows": count,
                "bytes": path.stat().st_size,
                "crc32": checksum(path),
            }
        )
        self.rows += count
        self.positives += int(self._labels[:count].sum())
        self._filled = 0


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
    return Shard(matrices[0], matrices[1], labels, bags)


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
