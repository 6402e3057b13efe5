"""The log formats by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lma.data.avazu import AvazuReader
from lma.data.bad_rows import BadRows
from lma.data.criteo import CriteoReader
from lma.data.frappe import FrappeReader
from lma.data.interactions import InteractionsReader
from lma.data.movielens import MovieLensReader
from lma.data.raw import LogReader
from lma.data.table import TableReader
from lma.errors import DataError

if TYPE_CHECKING:
    import polars as pl

FORMATS: Final = ("criteo", "avazu", "movielens", "frappe", "interactions", "table")

PathLike = str | os.PathLike[str]


def open_log(
    format: str,
    inputs: Sequence[PathLike] | PathLike,
    *,
    labelled: bool | None = True,
    seed: int = 0,
    **options: Any,
) -> LogReader:
    """The reader of a log.

    Args:
        format: One of `FORMATS`.
        inputs: Files or folders, in the order of time; one may be given without a list.
        labelled: Whether rows carry a label; `None` finds out, where the format allows both.
        seed: Seed of sampled negatives, where the format samples them.
        options: The format's own options: see its reader's arguments.

    Raises:
        ValueError: The format is unknown or there is no input.
        DataError: An input cannot be read.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    paths = [Path(path) for path in inputs]
    if not paths:
        raise ValueError("no input files given")
    if format in FORMATS:
        for path in paths:
            if not path.exists():
                raise DataError(f"{path}: no such file or folder")
    if format == "criteo":
        return CriteoReader(paths, labelled, **options)
    if format == "avazu":
        return AvazuReader(paths, labelled, **options)
    if format == "movielens":
        return MovieLensReader(paths, **options)
    if format == "frappe":
        return FrappeReader(paths, labelled, seed, **options)
    if format == "interactions":
        return InteractionsReader(paths, labelled, seed, **options)
    if format == "table":
        if "schema" not in options:
            raise ValueError('format "table" needs schema=..., the path of its TOML file')
        return TableReader(paths, labelled=labelled, **options)
    close = difflib.get_close_matches(format, FORMATS, n=1)
    hint = f"; the nearest is {close[0]!r}" if close else ""
    raise ValueError(f"format must be one of {', '.join(FORMATS)}, found {format!r}{hint}")


def read_raw(
    format: str,
    inputs: Sequence[PathLike] | PathLike,
    *,
    on_error: str = "fail",
    max_bad: int | float | str = "0.1%",
    max_rows: int | None = None,
    **options: Any,
) -> Iterator[pl.DataFrame]:
    """Raw rows in the shape `RowEncoder.encode` takes, chunk by chunk.

    The label column is there if the log has one.

    Args:
        format: One of `FORMATS`.
        inputs: Files or folders, in order.
        on_error: "fail" or "skip" bad rows.
        max_bad: With "skip", how many rows (int) or which share ("0.1%") may be bad.
        max_rows: Read only the first so many rows.
        options: The format's own options.

    Raises:
        DataError: A row or a file is bad.
    """
    import polars as pl

    reader = open_log(format, inputs, labelled=None, **options)
    bad = BadRows(on_error, max_bad)
    rows = 0
    for chunk in reader.chunks(bad, max_rows):
        rows = int(chunk.rows[-1]) + 1 if len(chunk.rows) else rows
        frame = pl.DataFrame() if chunk.table is None else pl.from_arrow(chunk.table)
        if isinstance(frame, pl.DataFrame):
            yield frame
    bad.check(rows)
