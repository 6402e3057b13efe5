"""Parquet files, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from lma.data.bad_rows import BadRows
from lma.data.row_checks import SourceRows
from lma.errors import DataError

BATCH_ROWS: Final = 1 << 16


class ParquetRows:
    """Reads the wanted columns with their own types."""

    def header(self, file: Path) -> list[str]:
        """The names of the columns.

        Raises:
            DataError: The file is no Parquet file, or two columns have one name.
        """
        try:
            names: list[str] = _open(file).schema_arrow.names
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: damaged: {error}") from None
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DataError(f"{file}: two columns are named {sorted(twice)[0]!r}")
        return names

    def read(self, file: Path, wanted: Sequence[str], bad: BadRows) -> Iterator[SourceRows]:
        """The file's rows.

        Raises:
            DataError: The file is damaged, or a column has a type that holds no values of ours.
        """
        import polars as pl
        import pyarrow as pa

        names = self.header(file)
        parquet = _open(file)
        size, total = file.stat().st_size, max(1, parquet.metadata.num_rows)
        row = 0
        try:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=list(wanted)):
                # Checked before polars sees it, which panics at damaged text.
                batch.validate(full=True)
                columns = {name: _plain(batch.column(name), file, name) for name in wanted}
                frame = pl.DataFrame({n: pl.Series(n, array) for n, array in columns.items()})
                numbers = row + np.arange(len(frame), dtype=np.int64)
                row += len(frame)
                done = int(size * row / total)
                yield SourceRows(frame, numbers, numbers + 1, done, names)
        except (OSError, KeyError, UnicodeDecodeError, pa.ArrowException) as error:
            raise DataError(f"{file}, after row {row:,}: damaged: {error}") from None


def _plain(array: Any, file: Path, name: str) -> Any:
    """The column in one of few types, without names and notes from the file inside the type."""
    import pyarrow as pa
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        return _plain(array.dictionary_decode(), file, name)
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind):
        return array
    if types.is_floating(kind) or types.is_decimal(kind):
        return array.cast(pa.float64())
    if types.is_string(kind) or types.is_large_string(kind):
        return array.cast(pa.large_string())
    if types.is_date(kind) or types.is_timestamp(kind):
        # Moments with a time zone become UTC.
        return array.cast(pa.timestamp("us"), safe=False)
    if types.is_list(kind) or types.is_large_list(kind):
        inner = kind.value_type
        if types.is_string(inner) or types.is_large_string(inner) or types.is_integer(inner):
            wanted = inner if types.is_integer(inner) else pa.large_string()
            return array.cast(pa.large_list(wanted))
    raise DataError(
        f"{file}: column {name!r} has the type {kind}; expected numbers, strings, times, or lists "
        "of strings or integers"
    )


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}") from None
