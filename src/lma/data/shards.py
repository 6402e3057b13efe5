"""Shards: Arrow IPC files of rows, laid out so that gathering random rows is fast.

A shard is a file of up to `SHARD_GROUPS` row groups; a row group is one uncompressed record batch
of `GROUP_ROWS` rows (the last one of a split has fewer):

    ids         fixed_size_list<int32 or int64>[one-hot features]   absent if there are none
    dense       fixed_size_list<float>[dense columns]               absent if there are none
    label       uint8
    weight      float                                               absent if rows have none
    bag:NAME    large_list<int32 or int64>, one per multi-hot feature

Row-major matrices: a row's ids lie next to each other. Groups are small, so that few rows wait in
memory while writing; files are large, so that a large log needs few of them.
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

GROUP_ROWS: Final = 1 << 16
SHARD_GROUPS: Final = 128
# Rows transposed at once from columns to rows: the tile stays in cache.
_TILE_ROWS: Final = 512

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowGroup:
    """The arrays of one row group.

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
        """The group's rows column by column, ids as int64."""
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


def map_shard(path: Path, schema: Schema) -> list[RowGroup]:
    """The row groups of a shard as views of the mapped file.

    Raises:
        FormatError: The file is missing, damaged or has other columns.
    """
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return [_views(reader.get_batch(n), schema) for n in range(reader.num_record_batches)]
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise FormatError(f"{path}: not a shard of this dataset: {error}") from None


def read_shard(path: Path, schema: Schema) -> Iterator[RowGroup]:
    """The row groups of a shard, one after the other in memory.

    Mapped pages would count as this process's memory.
    """
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield _views(reader.get_batch(number), schema)


def _views(batch: Any, schema: Schema) -> RowGroup:
    rows = batch.num_rows
    matrices = []
    for name, width in (("ids", len(schema.one_hot)), ("dense", len(schema.dense))):
        if width:
            matrices.append(batch.column(name).values.to_numpy().reshape(rows, width))
        else:
            matrices.append(np.zeros((rows, 0), np.int32 if name == "ids" else np.float32))
    bags = []
    for feature in schema.multi_hot:
        column = batch.column(f"bag:{feature.name}")
        bags.append((column.values.to_numpy(), column.offsets.to_numpy()))
    weights = batch.column("weight").to_numpy() if schema.weighted else None
    return RowGroup(matrices[0], matrices[1], batch.column("label").to_numpy(), weights, bags)


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
