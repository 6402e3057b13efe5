"""Avazu's click log (Kaggle 2014): CSV with a header, 10 days.

Columns: id, click, hour (YYMMDDHH), C1, banner_pos, site_id, ... C21. `id` is left out. The hour
becomes the hour of the day (24 tokens), since a day of its own never comes back; `hour="raw"`
keeps the 240 values that publications count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from lma.data.bad_rows import BadRows
from lma.data.delimited import Delimited
from lma.data.raw import RawChunk, RawFeature, RawSchema
from lma.data.row_checks import ColumnRules
from lma.data.splits import Split, last_day
from lma.data.table import check_header, read_tables
from lma.data.table_schema import TableSchema

_HEX: Final = (
    *("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model"),
)
FEATURES: Final = (
    *("hour", "C1", "banner_pos", *_HEX, "device_type", "device_conn_type"),
    *(f"C{number}" for number in range(14, 22)),
)
HOUR: Final = "%y%m%d%H"
SCHEMA: Final = RawSchema(
    name="avazu",
    dense=(),
    features=tuple(RawFeature(name) for name in FEATURES),
    description="Avazu's click-through log",
)


class AvazuReader:
    """Reads files in Avazu's shape, in the order given.

    Args:
        inputs: Files, plain, gzip or zstd.
        labelled: Whether the column `click` must be there; `None`: it is used where it is.
        hour: "of_day" or "raw".

    Raises:
        DataError: A file cannot be read or lacks a column.
    """

    schema = SCHEMA
    default_split = "time"

    def __init__(
        self, inputs: Sequence[Path], labelled: bool | None = True, hour: str = "of_day"
    ) -> None:
        if hour not in ("of_day", "raw"):
            raise ValueError(f'hour must be "of_day" or "raw", found {hour!r}')
        self.files = tuple(inputs)
        headers = [Delimited().header(file) for file in self.files]
        if labelled is None:
            labelled = all("click" in names for names in headers)
        self._rules = ColumnRules(
            schema=SCHEMA,
            label="click" if labelled else None,
            patterns={
                **dict.fromkeys(_HEX, (r"^[0-9a-fA-F]{8}$", "8 hexadecimal digits")),
                **{name: (r"^-?[0-9]+$", "an integer") for name in FEATURES if name not in _HEX},
                "hour": (r"^[0-9]{8}$", "an hour as YYMMDDHH"),
            },
            derive={"hour": lambda hours: hours.str.slice(6)} if hour == "of_day" else {},
        )
        self._table = TableSchema(self._rules, {"format": "csv"})
        for file, names in zip(self.files, headers, strict=True):
            check_header(file, names, self._rules)

    def titles(self) -> dict[str, dict[str, str]]:
        """Avazu's values are anonymous."""
        return {}

    def time_split(self, max_rows: int | None = None) -> Split:
        """The halves of the last day, found by a pass over the hours."""
        rules = replace(
            self._rules, schema=replace(SCHEMA, features=()), label=None, patterns={}, derive={}
        )
        silent = BadRows("skip", float(2**53))
        chunks = read_tables(
            replace(rules, time="hour", time_format=HOUR), self._table, self.files, silent, max_rows
        )
        return last_day(chunk.times for chunk in chunks if chunk.times is not None)

    def chunks(self, bad: BadRows, max_rows: int | None = None) -> Iterator[RawChunk]:
        """The rows of all files, in order."""
        rules = replace(self._rules, time="hour", time_format=HOUR)
        return read_tables(rules, self._table, self.files, bad, max_rows)
