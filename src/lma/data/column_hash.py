"""Raw columns as arrays: strings become 64-bit ids, numbers become finite floats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lma.data.dense import dense_matrix
from lma.data.raw import LABEL, WEIGHT, RawSchema
from lma.hashing import as_u64, combine, hash_string_buffer, mix64_int

if TYPE_CHECKING:
    import pyarrow as pa

I64 = npt.NDArray[np.int64]
# Rows turned at once from columns to rows: few enough to stay in cache.
_TILE_ROWS: Final = 512


@dataclass(frozen=True)
class HashedRows:
    """Rows whose categorical values are 64-bit string hashes.

    Attributes:
        one_hot: One int64 array (rows,) per one-hot feature, in the schema's order.
        bags: (values int64 (total,), lengths int64 (rows,)) per multi-hot feature, in order.
        dense: float32 (rows, num_dense), missing flags included.
        labels: float32 (rows,), NaN where there was no label column.
        weights: float32 (rows,), or `None`.
    """

    one_hot: list[I64]
    bags: list[tuple[I64, I64]]
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of_matrix(
        cls, matrix: I64, dense: npt.NDArray[np.float32], labels: npt.NDArray[np.float32]
    ) -> HashedRows:
        """Rows of one-hot features from their ids row by row, int64 (rows, features)."""
        rows = cls(list(matrix.T), [], dense, labels)
        # Known already, so it need not be made from the columns.
        rows.__dict__["matrix"] = matrix
        return rows

    @cached_property
    def matrix(self) -> I64:
        """The one-hot ids row by row, int64 (rows, one-hot features)."""
        rows = np.empty((len(self), len(self.one_hot)), np.int64)
        fill_rows(rows, self.one_hot, 0, len(self))
        return rows


def fill_rows(
    rows: npt.NDArray[Any], columns: Sequence[I64], first: int, stop: int, into: int = 0
) -> None:
    """Write rows `first` to `stop` of the columns into a row-major matrix, from row `into` on."""
    for tile in range(first, stop, _TILE_ROWS):
        end = min(tile + _TILE_ROWS, stop)
        for f, column in enumerate(columns):
            rows[into + tile - first : into + end - first, f] = column[tile:end]


def hash_rows(
    table: pa.Table,
    schema: RawSchema,
    run: Callable[..., Iterable[Any]] = map,
) -> HashedRows:
    """Hash a chunk's strings and transform its numbers.

    Args:
        table: Columns as `lma.data.raw` describes them; the label may be absent.
        schema: Which columns to take.
        run: `map`, or a thread pool's: columns are independent.
    """
    columns = [(table.column(feature.name), feature.multi_hot) for feature in schema.features]
    hashed: list[Any] = list(run(_hash_column, columns))
    rows = table.num_rows
    if LABEL in table.column_names:
        labels = table.column(LABEL).to_numpy().astype(np.float32)
    else:
        labels = np.full(rows, np.nan, np.float32)
    return HashedRows(
        [ids for ids, (_, multi_hot) in zip(hashed, columns, strict=True) if not multi_hot],
        [bag for bag, (_, multi_hot) in zip(hashed, columns, strict=True) if multi_hot],
        dense_matrix(table, schema.dense, run),
        labels,
        table.column(WEIGHT).to_numpy().astype(np.float32) if schema.weighted else None,
    )


def _hash_column(column: tuple[pa.ChunkedArray, bool]) -> Any:
    array, multi_hot = column
    return hash_bags(array) if multi_hot else hash_column(array)


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array without chunks."""
    import pyarrow as pa

    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def hash_column(column: pa.ChunkedArray | pa.Array) -> I64:
    """`lma.hashing.hash_string` of every string, as int64 ids (rows,); null counts as ""."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = one_array(column)
    if array.null_count:
        array = pc.fill_null(array, pa.scalar("", array.type))
    array = array.cast(pa.large_string())
    rows = len(array)
    if not rows:
        return np.zeros(0, np.int64)
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset :][: rows + 1]
    if data_buffer is None:
        data = np.zeros(0, np.uint8)
    else:
        data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    lengths = np.diff(offsets)
    full = lengths == 8
    if (full | (lengths == 0)).all():
        return _hash_words(data.view(np.dtype("<u8")), full)
    return hash_string_buffer(data, offsets)


def _hash_words(words: npt.NDArray[np.uint64], full: npt.NDArray[np.bool_]) -> I64:
    """`hash_string` of strings of exactly 8 bytes, one word each, and of empty ones."""
    hashes = combine(as_u64(np.array([mix64_int(8)], np.uint64)), words)
    if len(words) == len(full):
        return hashes.view(np.int64)
    ids = np.full(len(full), mix64_int(0), np.uint64)
    ids[full] = hashes
    return ids.view(np.int64)


def hash_bags(column: pa.ChunkedArray | pa.Array) -> tuple[I64, I64]:
    """Hashes of the strings of every list and the lists' lengths; null counts as empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = one_array(column).cast(pa.large_list(pa.large_string()))
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    # `flatten` leaves out what lies under null lists.
    return hash_column(array.flatten()), lengths.astype(np.int64)
