"""The user's own table: CSV, TSV, JSON lines or Parquet with a TOML schema."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lma.data.bad_rows import BadRows
from lma.data.raw import RawChunk, RawSchema
from lma.data.row_checks import ColumnRules
from lma.data.splits import Split, last_day
from lma.data.table_schema import TableSchema
from lma.errors import DataError


class TableReader:
    """Reads files of one schema, in the order given.

    Args:
        inputs: The files.
        schema: The schema, or the path of its TOML file.
        labelled: Whether the label column must be there; `None`: it is used where it is.

    Raises:
        DataError: The schema is wrong, or a file lacks a column.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        schema: TableSchema | str | Path,
        labelled: bool | None = True,
    ) -> None:
        if not isinstance(schema, TableSchema):
            schema = TableSchema.load(schema)
        self.files = tuple(inputs)
        self._table = schema
        headers = [schema.source(file).header(file) for file in self.files]
        self._rules = schema.rules
        if labelled is None and not all(self._rules.label in names for names in headers):
            self._rules = replace(self._rules, label=None)
        if labelled and self._rules.label is None:
            raise DataError("the schema names no label column")
        for file, names in zip(self.files, headers, strict=True):
            check_header(file, names, self._rules)

    @property
    def schema(self) -> RawSchema:
        """The raw columns."""
        return self._rules.schema

    @property
    def default_split(self) -> str:
        """By time where there is a time column."""
        return "random" if self._rules.time is None else "time"

    def titles(self) -> dict[str, dict[str, str]]:
        """A table has no display names."""
        return {}

    def time_split(self, max_rows: int | None = None) -> Split:
        """The halves of the last day (UTC) of the time column, found by a pass over it."""
        if self._rules.time is None:
            raise ValueError('the schema names no time column; use split="random"')
        only_time = replace(
            self._rules, schema=RawSchema("", (), ()), label=None, weight=None, separators={}
        )
        return last_day(_times(only_time, self._table, self.files, max_rows))

    def chunks(self, bad: BadRows, max_rows: int | None = None) -> Iterator[RawChunk]:
        """The rows of all files, in order.

        Raises:
            DataError: A file cannot be read, or a row is bad and `bad` fails.
        """
        return read_tables(self._rules, self._table, self.files, bad, max_rows)


def read_tables(
    rules: ColumnRules,
    table: TableSchema,
    files: Sequence[Path],
    bad: BadRows,
    max_rows: int | None = None,
) -> Iterator[RawChunk]:
    """Checked rows of several files as chunks."""
    first_row, bytes_before = 0, 0
    for file in files:
        rows_of_file = 0
        for source in table.source(file).read(file, rules.columns(), bad):
            rows = first_row + source.rows
            if max_rows is not None and len(rows) and rows[-1] >= max_rows:
                count = int(np.searchsorted(rows, max_rows))
                source = replace(
                    source,
                    frame=source.frame.head(count),
                    rows=source.rows[:count],
                    lines=source.lines[:count],
                )
            checked = rules.check(source, file, bad)
            yield RawChunk(
                checked.table,
                first_row + source.rows[checked.kept],
                bytes_before + source.bytes_done,
                checked.times,
            )
            if len(rows):
                rows_of_file = int(rows[-1]) + 1 - first_row
            if max_rows is not None and first_row + rows_of_file >= max_rows:
                return
        first_row += rows_of_file
        bytes_before += file.stat().st_size


def check_header(file: Path, names: Sequence[str], rules: ColumnRules) -> None:
    """Whether all needed columns are there.

    Raises:
        DataError: One is not; names it and the nearest.
    """
    for name in rules.columns():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"the nearest is {close[0]!r}" if close else f"there are {', '.join(names)}"
            raise DataError(f"{file}: column {name!r} is missing; {hint}")


def _times(
    rules: ColumnRules, table: TableSchema, files: Sequence[Path], max_rows: int | None
) -> Iterator[npt.NDArray[np.float64]]:
    # Bad rows are reported by the pass that reads everything.
    silent = BadRows("skip", float(2**53))
    for chunk in read_tables(rules, table, files, silent, max_rows):
        if chunk.times is not None:
            yield chunk.times
