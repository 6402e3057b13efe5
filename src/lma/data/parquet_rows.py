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
        names: list[str] = _open(file).schema_arrow.names
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DataError(f"{file}: two columns are named {sorted(twice)[0]!r}")
        return names

    def read(self, file: Path, wanted: Sequence[str], bad: BadRows) -> Iterator[SourceRows]:
        """The file's rows.

        Raises:
            DataError: The file is damaged.
        """
        import polars as pl
        import pyarrow as pa

        names = self.header(file)
        parquet = _open(file)
        size, total = file.stat().st_size, max(1, parquet.metadata.num_rows)
        row = 0
        try:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=list(wanted)):
                frame = pl.from_arrow(pa.Table.from_batches([batch]))
                if not isinstance(frame, pl.DataFrame):
                    raise DataError(f"{file}: not a table")
                numbers = row + np.arange(len(frame), dtype=np.int64)
                row += len(frame)
                done = int(size * row / total)
                yield SourceRows(frame.select(wanted), numbers, numbers + 1, done, names)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}, after row {row:,}: damaged: {error}") from None


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}") from None
