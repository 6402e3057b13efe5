"""Columns as a file gives them, checked value by value and brought into the raw table's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lma.data.bad_rows import BadRows
from lma.data.raw import LABEL, WEIGHT, RawSchema

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SourceRows:
    """Rows as a file gives them, whole ones only.

    Attributes:
        frame: The file's columns, strings or typed.
        rows: Number of each row within its file, from 0, rejected ones counted.
        lines: Line of each row (text files), or row number, from 1.
        bytes_done: Bytes of the file consumed.
        columns: Names of all columns of the file, for their numbers; empty where they have none.
    """

    frame: pl.DataFrame
    rows: I64
    lines: I64
    bytes_done: int
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Checked:
    """Usable rows in the raw table's types.

    Attributes:
        table: The raw columns.
        kept: Which of the source's rows these are.
        times: Seconds since 1970, where there is a time column.
    """

    table: pa.Table
    kept: I64
    times: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class ColumnRules:
    """Where the raw columns come from, and what a usable value is.

    Attributes:
        schema: The raw columns to make; features and dense columns keep the file's names.
        label: The file's label column; `None` where there is none.
        label_at_least: The label is 1 where the column is at least this; `None`: it is 0 or 1.
        weight: The file's weight column.
        time: The file's time column.
        time_format: "epoch" or "epoch_ms" for numbers, else strptime's format for texts.
        separators: Per multi-hot feature, what separates values where a bag is one text.
        patterns: Per one-hot feature, a regular expression every value must match, and its name.
        derive: Per feature, how its strings are made of the column of the same name.
    """

    schema: RawSchema
    label: str | None = LABEL
    label_at_least: float | None = None
    weight: str | None = None
    time: str | None = None
    time_format: str = "%Y-%m-%d %H:%M:%S"
    separators: Mapping[str, str] = field(default_factory=dict)
    patterns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    derive: Mapping[str, Callable[[pl.Series], pl.Series]] = field(default_factory=dict)

    def columns(self) -> list[str]:
        """The file's columns that are needed."""
        names = [self.label, self.weight, self.time]
        names += [column.name for column in self.schema.dense]
        names += [feature.name for feature in self.schema.features]
        return list(dict.fromkeys(name for name in names if name is not None))

    def check(self, source: SourceRows, file: Path, bad: BadRows) -> Checked:
        """Convert all columns; rows with an unusable value go to `bad`.

        Raises:
            DataError: A row is unusable and `bad` fails.
        """
        import polars as pl

        frame = source.frame
        made: dict[str, pl.Series] = {}
        # Per row: the first column that is unusable, or -1.
        fault = np.full(len(frame), -1, np.int64)
        faults: list[tuple[str, str]] = []

        def keep(name: str, source_name: str, found: tuple[pl.Series, pl.Series, str]) -> None:
            series, usable, reason = found
            unusable = ~usable.fill_null(False).to_numpy()
            fault[unusable & (fault < 0)] = len(faults)
            faults.append((source_name, reason))
            made[name] = series

        if self.label is not None:
            keep(LABEL, self.label, _label(frame[self.label], self.label_at_least))
        if self.weight is not None:
            keep(WEIGHT, self.weight, _weight(frame[self.weight]))
        if self.time is not None:
            keep("time", self.time, _time(frame[self.time], self.time_format))
        times = made.pop("time", None)
        for column in self.schema.dense:
            keep(column.name, column.name, _number(frame[column.name]))
        for feature in self.schema.features:
            name, series = feature.name, frame[feature.name]
            if feature.multi_hot:
                found = _bag(series, self.separators.get(name))
            else:
                found = _token(series, self.patterns.get(name))
            if name in self.derive:
                found = (self.derive[name](found[0]), *found[1:])
            keep(name, name, found)
        for index in np.flatnonzero(fault >= 0).tolist():
            name, reason = faults[fault[index]]
            bad.add(
                reason,
                file=file,
                line=int(source.lines[index]),
                column=source.columns.index(name) + 1 if name in source.columns else None,
                column_name=name,
                text=str(frame[name][index]),
            )
        kept = np.flatnonzero(fault < 0).astype(np.int64)
        result = pl.DataFrame(made)
        if len(kept) < len(frame):
            result = result[kept] if made else result
            times = None if times is None else times[kept]
        table: pa.Table = result.to_arrow(compat_level=pl.CompatLevel.oldest())
        return Checked(table, kept, None if times is None else times.to_numpy())


def _floats(series: pl.Series) -> pl.Series:
    """The values as float64; null where that is impossible, or was."""
    import polars as pl

    if series.dtype == pl.String or series.dtype.is_numeric() or series.dtype == pl.Boolean:
        return series.cast(pl.Float64, strict=False)
    return pl.repeat(None, len(series), dtype=pl.Float64, eager=True)


def _is_missing(series: pl.Series) -> pl.Series:
    import polars as pl

    missing = series.is_null()
    return missing | (series == "") if series.dtype == pl.String else missing


def _label(series: pl.Series, at_least: float | None) -> tuple[pl.Series, pl.Series, str]:
    import polars as pl

    values = _floats(series)
    if at_least is None:
        return values.cast(pl.Float32), values.is_in([0.0, 1.0]), "the label must be 0 or 1"
    labels = (values >= at_least).cast(pl.Float32)
    return labels, values.is_finite(), "expected a finite number"


def _weight(series: pl.Series) -> tuple[pl.Series, pl.Series, str]:
    import polars as pl

    values = _floats(series)
    usable = values.is_finite() & (values >= 0) & (values <= float(np.finfo(np.float32).max))
    return values.cast(pl.Float32, strict=False), usable, "expected a finite weight >= 0"


def _number(series: pl.Series) -> tuple[pl.Series, pl.Series, str]:
    values = _floats(series)
    missing = _is_missing(series)
    if series.dtype.is_float():
        # In columns of floats, NaN is how pandas and others write a missing number.
        missing |= series.is_nan().fill_null(True)
        values = values.fill_nan(None)
    usable = missing | values.is_finite().fill_null(False)
    return values, usable, "expected a finite number or nothing"


def _token(series: pl.Series, pattern: tuple[str, str] | None) -> tuple[pl.Series, pl.Series, str]:
    import polars as pl

    reason = "expected a string or an integer"
    if series.dtype.is_nested() or series.dtype == pl.Object:
        values = pl.repeat(None, len(series), dtype=pl.String, eager=True)
        return values, values.is_not_null(), reason
    if series.dtype.is_float():
        # Whole numbers become floats where a column of integers had gaps.
        whole = series.cast(pl.Int64, strict=False)
        usable = series.is_null() | series.is_nan() | (whole.cast(pl.Float64) == series)
        return whole.cast(pl.String).fill_null(""), usable, reason
    values = series.cast(pl.String).fill_null("")
    if pattern is None:
        return values, pl.repeat(True, len(values), eager=True), reason
    return values, (values == "") | values.str.contains(pattern[0]), f"expected {pattern[1]}"


def _bag(series: pl.Series, separator: str | None) -> tuple[pl.Series, pl.Series, str]:
    import polars as pl

    reason = "expected a list of strings or integers"
    if series.dtype == pl.String and separator is not None:
        bags = _split(series, separator)
        return bags, pl.repeat(True, len(series), eager=True), reason
    inner: Any = series.dtype.inner if isinstance(series.dtype, pl.List) else None
    if inner is None or not (inner.is_integer() or inner in (pl.String, pl.Boolean, pl.Null)):
        values = pl.repeat(None, len(series), dtype=pl.List(pl.String), eager=True)
        return values, series.is_null() & (series.dtype == pl.Null), reason
    return series.cast(pl.List(pl.String)), pl.repeat(True, len(series), eager=True), reason


def _split(series: pl.Series, separator: str) -> pl.Series:
    """Texts as lists of their parts; an empty text is an empty bag, not one empty value."""
    import polars as pl

    text = pl.col("text")
    return (
        pl.DataFrame({"text": series.fill_null("")})
        .select(
            pl.when(text == "")
            .then(pl.lit([], pl.List(pl.String)))
            .otherwise(text.str.split(separator))
            .alias("bags")
        )
        .get_column("bags")
    )


def _time(series: pl.Series, time_format: str) -> tuple[pl.Series, pl.Series, str]:
    import polars as pl

    if series.dtype.is_temporal():
        moments = series.cast(pl.Datetime("us"), strict=False)
    elif series.dtype == pl.String and not time_format.startswith("epoch"):
        if "%H" in time_format and "%M" not in time_format:
            # An hour alone is no time to the parser.
            series, time_format = series + "00", time_format + "%M"
        moments = series.str.to_datetime(time_format, strict=False, time_unit="us")
    else:
        seconds = _floats(series) / (1000.0 if time_format == "epoch_ms" else 1.0)
        return seconds, seconds.is_finite(), "expected a time"
    seconds = moments.dt.timestamp("us").cast(pl.Float64) / 1e6
    return seconds, seconds.is_not_null(), f"expected a time ({time_format})"
