"""Positives only, such as purchases: a user and an item per row, negatives are sampled.

Every positive is followed by its negatives, which share its split. Negatives are drawn once, with
a seed, from items the user has no positive with in the whole log. All positives are held in
memory (about 50 bytes each).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lma.data.bad_rows import BadRows
from lma.data.column_hash import one_array
from lma.data.negatives import sample_negatives
from lma.data.raw import LABEL, RawChunk, RawFeature, RawSchema
from lma.data.row_checks import ColumnRules
from lma.data.splits import Split
from lma.data.table import check_header, read_tables
from lma.data.table_schema import TableSchema
from lma.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_POSITIVES: Final = 1 << 16


class InteractionsReader:
    """Reads positives and adds negatives.

    Args:
        inputs: CSV, TSV, JSON lines or Parquet files, told by their suffix.
        labelled: True adds labels and negatives; `None` (prediction) gives the rows alone.
        seed: Seed of the negatives.
        user: The user's column.
        item: The item's column.
        context: Further columns, the same for a positive and its negatives; names, or one text
            with commas between them.
        item_columns: Further columns that belong to the item; a negative has its own item's.
        negatives: Negatives per positive.
        sampling: "popularity" draws items as often as they occur, "uniform" all alike.

    Raises:
        DataError: A file cannot be read or lacks a column.
    """

    default_split = "random"

    def __init__(
        self,
        inputs: Sequence[Path],
        labelled: bool | None = True,
        seed: int = 0,
        *,
        user: str = "user",
        item: str = "item",
        context: Sequence[str] | str = (),
        item_columns: Sequence[str] | str = (),
        negatives: int = 2,
        sampling: str = "popularity",
        name: str = "interactions",
        description: str = "Positives only, with sampled negatives",
    ) -> None:
        if negatives < 0:
            raise ValueError(f"negatives must be >= 0, found {negatives}")
        if sampling not in ("popularity", "uniform"):
            raise ValueError(f'sampling must be "popularity" or "uniform", found {sampling!r}')
        self.files = tuple(inputs)
        self._labelled, self._seed = labelled is True, seed
        self._user, self._item = user, item
        context, item_columns = _names(context), _names(item_columns)
        self._of_item = (item, *item_columns)
        self._negatives, self._by_popularity = negatives, sampling == "popularity"
        names = (user, item, *context, *item_columns)
        self.schema = RawSchema(
            name, (), tuple(RawFeature(column) for column in names), description
        )
        self._rules = ColumnRules(schema=self.schema, label=None)
        self._table = TableSchema(self._rules)
        for file in self.files:
            check_header(file, self._table.source(file).header(file), self._rules)

    def titles(self) -> dict[str, dict[str, str]]:
        """There are no display names."""
        return {}

    def time_split(self, max_rows: int | None = None) -> Split:
        """There is no time."""
        raise ValueError('the log has no time column; use split="random"')

    def chunks(self, bad: BadRows, max_rows: int | None = None) -> Iterator[RawChunk]:
        """Positives and their negatives, in the order of the positives.

        Raises:
            DataError: A file cannot be read, a row is bad, or no negatives can be found.
        """
        import pyarrow as pa

        chunks = read_tables(self._rules, self._table, self.files, bad, max_rows)
        if not self._labelled:
            yield from chunks
            return
        read = list(chunks)
        table = pa.concat_tables([c.table for c in read if c.table is not None]).combine_chunks()
        rows = np.concatenate([chunk.rows for chunk in read])
        if not len(rows):
            raise DataError(f"{self.files[0]}: no usable rows")
        users, _ = _codes(table.column(self._user))
        items, first_rows = _codes(table.column(self._item))
        drawn = sample_negatives(
            users,
            items,
            len(first_rows),
            self._negatives,
            by_popularity=self._by_popularity,
            seed=self._seed,
        )
        size, group = sum(file.stat().st_size for file in self.files), 1 + self._negatives
        for start in range(0, len(rows), CHUNK_POSITIVES):
            own = np.arange(start, min(start + CHUNK_POSITIVES, len(rows)), dtype=np.int64)
            # Where each row's context and each row's item come from.
            context = pa.array(np.repeat(own, group))
            item = pa.array(np.hstack([own[:, None], first_rows[drawn[own]]]).reshape(-1))
            columns: dict[str, Any] = {
                name: table.column(name).take(item if name in self._of_item else context)
                for name in table.column_names
            }
            labels = np.zeros((len(own), group), np.float32)
            labels[:, 0] = 1
            yield RawChunk(
                pa.table({LABEL: labels.reshape(-1), **columns}),
                np.repeat(rows[own], group),
                int(size * (own[-1] + 1) / len(rows)),
            )


def _names(columns: Sequence[str] | str) -> tuple[str, ...]:
    return tuple(columns.split(",") if isinstance(columns, str) else columns)


def _codes(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Codes from 0 of the column's values, and a row that holds each."""
    encoded = one_array(column).dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    rows = np.empty(len(encoded.dictionary), np.int64)
    rows[codes[::-1]] = np.arange(len(codes))[::-1]
    return codes, rows
