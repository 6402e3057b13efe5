"""What happens to rows that cannot be used: fail at the first, or count, keep aside and go on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import IO

from lma.errors import DataError

TEXT_SHOWN = 200  # characters of a bad line that messages and rejects keep


class BadRows:
    """Collects the bad rows of one run.

    Args:
        on_error: "fail" raises at the first bad row, "skip" goes on.
        max_bad: With "skip", the most that may be bad: a number of rows (int), or a share of the
            rows (float below 1, or a string such as "0.1%").
        rejects: Where bad rows are written as JSON lines (file, line, column, reason, text); the
            file exists only if there are any. `None`: they are only counted.

    Raises:
        ValueError: `on_error` or `max_bad` is not understood.
    """

    def __init__(
        self,
        on_error: str = "fail",
        max_bad: int | float | str = "0.1%",
        rejects: Path | None = None,
    ) -> None:
        if on_error not in ("fail", "skip"):
            raise ValueError(f'on_error must be "fail" or "skip", found {on_error!r}')
        self._skip = on_error == "skip"
        self._limit = _parse_limit(max_bad)
        self._rejects = rejects
        self._file: IO[str] | None = None
        self.count = 0
        self.first: str | None = None
        if rejects is not None:
            # A folder that cannot be written to is reported where the dataset is.
            with contextlib.suppress(OSError):
                rejects.unlink(missing_ok=True)

    def add(
        self,
        reason: str,
        *,
        file: Path | str,
        line: int | None = None,
        column: int | None = None,
        column_name: str | None = None,
        text: str = "",
    ) -> None:
        """Report one bad row; lines and columns count from 1.

        Raises:
            DataError: Under "fail".
        """
        shown = text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "..."
        message = describe(reason, file, line, column, column_name, shown)
        if not self._skip:
            raise DataError(message)
        self.count += 1
        if self.first is None:
            self.first = message
        if self._rejects is not None:
            if self._file is None:
                self._file = self._rejects.open("w", encoding="utf-8")
            record = {
                "file": str(file),
                "line": line,
                "column": column,
                "column_name": column_name,
                "reason": reason,
                "text": text,
            }
            self._file.write(json.dumps(record, ensure_ascii=True) + "\n")

    def check(self, rows: int) -> None:
        """Compare with the limit, `rows` being all rows read so far, bad ones included.

        Raises:
            DataError: More rows are bad than `max_bad` allows.
        """
        allowed = self._allowed(rows)
        if self.count > allowed:
            where = f" (all of them in {self._rejects})" if self._rejects else ""
            self.close()
            raise DataError(
                f"{self.count:,} of {rows:,} rows are bad, more than the {allowed:,.0f} that "
                f"max_bad allows{where}; the first: {self.first}"
            )

    def hopeless(self, rows: int) -> bool:
        """Whether so much is bad, and more than allowed, that reading on is a waste of time."""
        return rows >= 10_000 and self.count > max(rows // 2, self._allowed(rows))

    def _allowed(self, rows: int) -> float:
        return self._limit if self._limit >= 1 else self._limit * rows

    def close(self) -> None:
        """Close the rejects' file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def describe(
    reason: str,
    file: Path | str,
    line: int | None = None,
    column: int | None = None,
    column_name: str | None = None,
    text: str = "",
) -> str:
    """One message for a bad row: file, line, column, reason, text."""
    place = str(file)
    if line is not None:
        place += f", line {line:,}"
    if column is not None:
        place += f", column {column}"
    if column_name is not None:
        place += f" ({column_name})"
    return f"{place}: {reason}" + (f": {text!r}" if text else "")


def _parse_limit(max_bad: int | float | str) -> float:
    """A share below 1, or a number of rows."""
    try:
        if isinstance(max_bad, str):
            text = max_bad.strip()
            value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        else:
            value = float(max_bad)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or isinstance(max_bad, bool):
        raise ValueError(
            f'max_bad must be a number of rows or a share such as "0.1%", found {max_bad!r}'
        )
    return value
