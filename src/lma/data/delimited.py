"""CSV and TSV files, plain, gzip or zstd, as frames of strings."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lma.data.bad_rows import BadRows
from lma.data.prefetch import prefetch
from lma.data.row_checks import SourceRows
from lma.data.text_blocks import TextBlock, read_text_blocks
from lma.errors import DataError

if TYPE_CHECKING:
    import polars as pl

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Delimited:
    """How a text file's columns are written.

    Attributes:
        separator: One character between columns.
        quote: One character around values that hold separators or line ends; "" for none.
        columns: The columns' names, where the first line does not say them.
    """

    separator: str = ","
    quote: str = '"'
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.separator.encode()) != 1:
            raise ValueError(f"separator must be one byte, found {self.separator!r}")
        if len(self.quote.encode()) > 1:
            raise ValueError(f"quote must be one byte or empty, found {self.quote!r}")

    def header(self, file: Path) -> list[str]:
        """The names of the file's columns.

        Raises:
            DataError: The file cannot be read, or two columns have one name.
        """
        if self.columns is not None:
            return list(self.columns)
        blocks = read_text_blocks(file, 1 << 16, self.quote.encode())
        text = next(iter(blocks)).data.decode("utf-8", errors="replace")
        try:
            names: list[str] = next(self._reader(io.StringIO(text)))
        except csv.Error as error:
            raise DataError(f"{file}, line 1: cannot be read as a header: {error}") from None
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DataError(f"{file}, line 1: two columns are named {sorted(twice)[0]!r}")
        return names

    def read(self, file: Path, wanted: Sequence[str], bad: BadRows) -> Iterator[SourceRows]:
        """The file's rows; those with another number of columns go to `bad`.

        Raises:
            DataError: The file cannot be read, or a row is bad and `bad` fails.
        """
        names = self.header(file)
        row = 0
        skip = self.columns is None
        for block in prefetch(read_text_blocks(file, quote=self.quote.encode()), 1):
            if skip and not _quoted(block.data[: block.data.index(b"\n")], self.quote):
                block, skip = _without_first_line(block), False
            frame = None if skip else self._parse_fast(block, names)
            count = block.lines
            if frame is not None:
                rows = np.arange(count, dtype=np.int64)
                lines = block.first_line + rows
            else:
                frame, rows, lines, count = self._parse_slowly(block, names, skip, file, bad)
            source = SourceRows(frame.select(wanted), row + rows, lines, block.bytes_done, names)
            row += count
            skip = False
            yield source

    def _reader(self, lines: Iterable[str]) -> Any:
        if not self.quote:
            return csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self.separator, quotechar=self.quote, strict=True)

    def _parse_fast(self, block: TextBlock, names: Sequence[str]) -> pl.DataFrame | None:
        """The whole block at once, or `None` if anything in it is out of the ordinary."""
        import polars as pl

        data = block.data
        if _quoted(data, self.quote) or not block.lines:
            return None
        # polars fills up short lines, so columns are counted here; it refuses long ones itself.
        if len(names) < 2 or data.count(self.separator.encode()) != block.lines * (len(names) - 1):
            return None
        try:
            frame = pl.read_csv(
                data,
                has_header=False,
                separator=self.separator,
                quote_char=None,
                schema=dict.fromkeys(names, pl.String()),
            )
        except pl.exceptions.PolarsError:
            return None
        return frame if len(frame) == block.lines else None

    def _parse_slowly(
        self, block: TextBlock, names: Sequence[str], skip_header: bool, file: Path, bad: BadRows
    ) -> tuple[pl.DataFrame, I64, I64, int]:
        """Row by row with the csv module: good rows, their numbers and lines, all rows' count."""
        import polars as pl

        # Bytes that are no UTF-8 survive as surrogates, to be found per row.
        lines = block.data.decode("utf-8", errors="surrogateescape").split("\n")[:-1]
        reader = self._reader(line + "\n" for line in lines)
        records: list[list[str]] = []
        rows: list[int] = []
        at: list[int] = []
        count = -1 if skip_header else 0
        while True:
            line = block.first_line + reader.line_num
            fault = None
            record: list[str] = []
            try:
                record = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                fault = f"cannot be read as a row: {error}"
            count += 1
            if not count and skip_header:
                continue
            if fault is None and len(record) != len(names):
                fault = f"expected {len(names)} columns, found {len(record)}"
            if fault is None and not _is_utf8(record):
                fault = "not valid UTF-8"
            if fault is None:
                records.append(record)
                rows.append(count - 1)
                at.append(line)
            else:
                text = lines[line - block.first_line]
                shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                bad.add(fault, file=file, line=line, text=shown)
        columns = list(zip(*records, strict=True)) if records else [()] * len(names)
        frame = pl.DataFrame(
            {
                name: pl.Series(values, dtype=pl.String)
                for name, values in zip(names, columns, strict=True)
            }
        )
        return frame, np.array(rows, np.int64), np.array(at, np.int64), max(count, 0)


def _quoted(line: bytes, quote: str) -> bool:
    return bool(quote) and quote.encode() in line


def _without_first_line(block: TextBlock) -> TextBlock:
    data = block.data[block.data.index(b"\n") + 1 :]
    return replace(block, data=data, lines=block.lines - 1, first_line=block.first_line + 1)


def _is_utf8(record: Sequence[str]) -> bool:
    return not any(0xD800 <= ord(sign) < 0xE000 for value in record for sign in value)
