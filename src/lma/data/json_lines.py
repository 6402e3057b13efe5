"""JSON lines, plain, gzip or zstd: one object per line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lma.data.bad_rows import BadRows
from lma.data.prefetch import prefetch
from lma.data.row_checks import SourceRows
from lma.data.text_blocks import read_text_blocks


class JsonLines:
    """Reads objects; a key that is absent is missing.

    Args:
        numbers: Columns that hold numbers (the others hold tokens).
        bags: Columns that hold lists of tokens.
    """

    def __init__(self, numbers: Sequence[str], bags: Sequence[str]) -> None:
        self._numbers, self._bags = frozenset(numbers), frozenset(bags)

    def header(self, file: Path) -> list[str]:
        """All keys of the objects in the file's first megabyte."""
        block = next(iter(read_text_blocks(file, 1 << 20)))
        names: dict[str, None] = {}
        for line in block.data.split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                names.update(dict.fromkeys(record if isinstance(record, dict) else ()))
        return list(names)

    def read(self, file: Path, wanted: Sequence[str], bad: BadRows) -> Iterator[SourceRows]:
        """The file's rows; lines that are no object, or of wrong types, go to `bad`.

        Raises:
            DataError: The file cannot be read, or a line is bad and `bad` fails.
        """
        import polars as pl

        row = 0
        for block in prefetch(read_text_blocks(file), 1):
            values: dict[str, list[Any]] = {name: [] for name in wanted}
            kept: list[int] = []
            for number, line in enumerate(block.data.split(b"\n")[:-1]):
                found, fault = self._parse(line, wanted)
                if fault is not None:
                    name, reason = fault
                    bad.add(
                        reason,
                        file=file,
                        line=block.first_line + number,
                        column_name=name,
                        text=line.decode("utf-8", "backslashreplace"),
                    )
                    continue
                kept.append(number)
                for name, value in zip(wanted, found, strict=True):
                    values[name].append(value)
            frame = pl.DataFrame(
                {name: pl.Series(values[name], dtype=self._dtype(name)) for name in wanted}
            )
            numbers = np.array(kept, np.int64)
            yield SourceRows(frame, row + numbers, block.first_line + numbers, block.bytes_done)
            row += block.lines

    def _dtype(self, name: str) -> Any:
        import polars as pl

        if name in self._numbers:
            return pl.Float64()
        return pl.List(pl.String()) if name in self._bags else pl.String()

    def _parse(
        self, line: bytes, wanted: Sequence[str]
    ) -> tuple[list[Any], tuple[str | None, str] | None]:
        """The wanted values of a line, or the column and the reason why there are none."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            return [], (None, f"not JSON: {str(error)[:100]}")
        if not isinstance(record, dict):
            return [], (None, "expected a JSON object")
        found: list[Any] = []
        for name in wanted:
            value = record.get(name)
            try:
                if name in self._numbers:
                    found.append(_number(value))
                elif name in self._bags:
                    found.append(_bag(value))
                else:
                    found.append(_token(value))
            except (TypeError, OverflowError, ValueError) as error:
                return [], (name, str(error))
        return found, None


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        raise TypeError("expected a number")
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("expected a finite number")
    return number


def _token(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON can write half a character; no string of bytes can.
        value.encode()
        return value
    if isinstance(value, int):
        return str(value)
    raise TypeError("expected a string or an integer")


def _bag(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError("expected a list of strings or integers")
    return [_token(element) for element in value]
