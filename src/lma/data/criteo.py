"""Criteo's click logs: Kaggle's `train.txt` and the Terabyte's `day_0` to `day_23`.

Tab-separated without a header: label, 13 integers (may be empty or negative), 26 categories of 8
hexadecimal digits (may be empty). Kaggle's `test.txt` has no label column. The log is in time
order: one file is read as Kaggle's 7 days of equal length, several files as one day each.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from lma.data.bad_rows import BadRows
from lma.data.criteo_parser import NUM_CATEGORIES, NUM_INTEGERS, parse_block
from lma.data.prefetch import prefetch
from lma.data.raw import LABEL, DenseColumn, RawChunk, RawFeature, RawSchema
from lma.data.splits import RowSplit
from lma.data.text_blocks import TextBlock, count_lines, read_text_blocks
from lma.errors import DataError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

INTEGERS: Final = tuple(f"I{j}" for j in range(1, NUM_INTEGERS + 1))
CATEGORIES: Final = tuple(f"C{f}" for f in range(1, NUM_CATEGORIES + 1))
KAGGLE_DAYS: Final = 7
COMPILE_FROM_BYTES: Final = 1 << 28

SCHEMA: Final = RawSchema(
    name="criteo",
    dense=tuple(DenseColumn(name) for name in INTEGERS),
    features=tuple(RawFeature(name) for name in CATEGORIES),
    description="Click log in Criteo's TSV shape",
)

_INTEGER = re.compile(rb"-?[0-9]{1,19}")
_HEX = re.compile(rb"[0-9a-fA-F]{8}")
_DIGITS_AND_SIGN: Final = b"0123456789abcdefABCDEF-"


class CriteoReader:
    """Reads files in Criteo's shape, in the order given.

    Args:
        inputs: Files, plain, gzip or zstd; a folder stands for its `day_*` files (by number).
        labelled: Whether the label column is there; `None` looks at the first line.
        compiled: Whether chunks of a labelled log come hashed, parsed by compiled code; `None`:
            where the log is large enough to be worth the seconds of compiling.

    Raises:
        DataError: A file cannot be read or is empty.
    """

    schema = SCHEMA

    def __init__(
        self,
        inputs: Sequence[Path],
        labelled: bool | None = True,
        compiled: bool | None = None,
    ) -> None:
        self.files = tuple(file for path in inputs for file in _day_files(path))
        if compiled is None:
            compiled = sum(file.stat().st_size for file in self.files) >= COMPILE_FROM_BYTES
        self._compiled = labelled is True and compiled
        if labelled is None:
            labelled = _first_line(self.files[0]).count(b"\t") != NUM_INTEGERS + NUM_CATEGORIES - 1
        self._names = ((LABEL,) if labelled else ()) + INTEGERS + CATEGORIES
        self._labelled = labelled

    @property
    def default_split(self) -> str:
        """By time for several days' files; a single file may be any sample: random."""
        return "time" if len(self.files) > 1 else "random"

    def titles(self) -> dict[str, dict[str, str]]:
        """Criteo's values are anonymous."""
        return {}

    def time_split(self, max_rows: int | None = None) -> RowSplit:
        """The halves of the last day, by row number.

        The last day is the last of several files, or the last seventh of a single one.
        """
        counts = [count_lines(file) for file in self.files]
        total = sum(counts) if max_rows is None else min(sum(counts), max_rows)
        if len(counts) > 1 and total == sum(counts):
            last_day = counts[-1]
        else:
            last_day = -(-total // KAGGLE_DAYS)
        return RowSplit(total - last_day, total - last_day // 2)

    def chunks(self, bad: BadRows, max_rows: int | None = None) -> Iterator[RawChunk]:
        """The rows of all files, in order.

        Raises:
            DataError: A file cannot be read, or a row is bad and `bad` fails.
        """
        first_row, bytes_before = 0, 0
        for file in self.files:
            # Reading and unpacking go on while a block is parsed.
            for block in prefetch(read_text_blocks(file), 1):
                if max_rows is not None and first_row + block.lines > max_rows:
                    block = _head(block, max_rows - first_row)
                bytes_done = bytes_before + block.bytes_done
                hashed = parse_block(block.data, block.lines) if self._compiled else None
                if hashed is not None:
                    rows = np.arange(first_row, first_row + block.lines, dtype=np.int64)
                    yield RawChunk(None, rows, bytes_done, hashed=hashed)
                else:
                    table, kept = self._parse(block, file, bad)
                    yield RawChunk(table, first_row + kept, bytes_done)
                first_row += block.lines
                if max_rows is not None and first_row >= max_rows:
                    return
            bytes_before += file.stat().st_size

    def _parse(
        self, block: TextBlock, file: Path, bad: BadRows
    ) -> tuple[pa.Table, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """The block's table and the numbers of its good lines within the block."""
        table = self._parse_fast(block.data, block.lines)
        if table is not None:
            return table, np.arange(block.lines, dtype=np.int64)
        good, kept = [], []
        for number, line in enumerate(block.data.split(b"\n")[:-1]):
            found = self._fault(line)
            if found is None:
                good.append(line)
                kept.append(number)
                continue
            column, reason = found
            bad.add(
                reason,
                file=file,
                line=block.first_line + number,
                column=column,
                column_name=self._names[column - 1] if column else None,
                text=_field_text(line, column),
            )
        table = self._parse_fast(b"".join(line + b"\n" for line in good), len(good))
        if table is None:
            raise DataError(
                f"{file}, lines {block.first_line:,} to {block.first_line + block.lines - 1:,}: "
                "cannot be parsed"
            )
        return table, np.array(kept, dtype=np.int64)

    def _parse_fast(self, data: bytes, lines: int) -> pa.Table | None:
        """The whole block at once, or `None` if anything in it is wrong."""
        import polars as pl
        import pyarrow as pa

        # What is left without digits and signs must be the lines' tabs and ends; polars itself
        # would fill up short lines with nulls.
        tabs = len(self._names) - 1
        if data.translate(None, _DIGITS_AND_SIGN) != (b"\t" * tabs + b"\n") * lines:
            return None
        dtypes = {name: pl.String() if name in CATEGORIES else pl.Int64() for name in self._names}
        if not lines:
            frame = pl.DataFrame(schema=dtypes)
        else:
            try:
                frame = pl.read_csv(
                    io.BytesIO(data),
                    has_header=False,
                    separator="\t",
                    quote_char=None,
                    schema=dtypes,
                    raise_if_empty=False,
                )
            except pl.exceptions.PolarsError:
                return None
        if len(frame) != lines:
            return None
        if self._labelled:
            label = frame[LABEL]
            if label.null_count() or not label.is_between(0, 1).all():
                return None
        # The integers' own minus signs are the only ones there may be; "-0" is counted as none,
        # and the strings are looked through.
        negative = sum(int((frame[name] < 0).sum()) for name in INTEGERS)
        if data.count(b"-") != negative and not _no_minus(frame):
            return None
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if not all(_empty_or_eight(table.column(name)) for name in CATEGORIES):
            return None
        if self._labelled:
            table = table.set_column(0, LABEL, table.column(LABEL).cast(pa.float32()))
        return table

    def _fault(self, line: bytes) -> tuple[int | None, str] | None:
        """What is wrong with a line: column (from 1) and reason; `None` if nothing is."""
        fields = line.split(b"\t")
        if len(fields) != len(self._names):
            return None, f"expected {len(self._names)} tab-separated columns, found {len(fields)}"
        for column, (name, field) in enumerate(zip(self._names, fields, strict=True), start=1):
            if name == LABEL:
                if field not in (b"0", b"1"):
                    return column, "the label must be 0 or 1"
            elif not field:
                continue
            elif name in CATEGORIES:
                if not _HEX.fullmatch(field):
                    return column, "expected 8 hexadecimal digits or nothing"
            elif not _INTEGER.fullmatch(field):
                return column, "expected an integer or nothing"
            elif not -(1 << 63) <= int(field) < 1 << 63:
                return column, "the integer does not fit in 64 bits"
        return None


def _no_minus(frame: pl.DataFrame) -> bool:
    """Whether no category holds a minus sign."""
    return not any(frame[name].str.contains("-", literal=True).any() for name in CATEGORIES)


def _empty_or_eight(strings: pa.ChunkedArray) -> bool:
    """Whether every string is empty (or null) or 8 bytes long."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(strings).fill_null(0).to_numpy()
    return bool(((lengths == 8) | (lengths == 0)).all())


def _field_text(line: bytes, column: int | None) -> str:
    shown = line if column is None else line.split(b"\t")[column - 1]
    return shown.decode("utf-8", errors="backslashreplace")


def _head(block: TextBlock, lines: int) -> TextBlock:
    """The first lines of a block."""
    data = b"".join(line + b"\n" for line in block.data.split(b"\n", lines)[:lines])
    return TextBlock(data, lines, block.first_line, block.bytes_done)


def _first_line(path: Path) -> bytes:
    block = next(iter(read_text_blocks(path, block_bytes=1 << 16)))
    return block.data[: block.data.index(b"\n")]


def _day_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    days = [file for file in path.iterdir() if re.fullmatch(r"day_\d+(\.gz|\.zst)?", file.name)]
    if not days:
        raise DataError(f"{path}: a folder without Criteo's day_0, day_1, ... files")
    return sorted(days, key=lambda file: int(re.findall(r"\d+", file.name)[0]))
