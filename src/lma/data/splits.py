"""Which rows train, validate and test: by time, or by a seeded hash of the row number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from lma.errors import DataError
from lma.hashing import combine, hash_string, reduce_range, stream_seed

SPLITS: Final = ("train", "validation", "test")
DAY_SECONDS: Final = 86_400
RANDOM_SHARES: Final = (8, 1, 1)  # tenths


class Split(Protocol):
    """A rule that says where a row goes."""

    def assign(
        self, rows: npt.NDArray[np.int64], times: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.int64]:
        """0, 1 or 2 (train, validation, test) for each row."""

    def to_dict(self) -> dict[str, Any]:
        """The split as JSON values."""


@dataclass(frozen=True)
class RandomSplit:
    """80/10/10 by a hash of (seed, row number): a row's split depends on nothing else."""

    seed: int

    def assign(
        self, rows: npt.NDArray[np.int64], times: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.int64]:
        """0, 1 or 2 (train, validation, test) for each row number."""
        state = np.uint64(stream_seed(self.seed, hash_string("split")))
        tenth = reduce_range(combine(state, rows), 10)
        return np.searchsorted(np.cumsum(RANDOM_SHARES), tenth, side="right").astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """The split as JSON values."""
        return {"kind": "random", "seed": self.seed, "tenths": list(RANDOM_SHARES)}


@dataclass(frozen=True)
class RowSplit:
    """A log in time order: rows from `validation` on validate, from `test` on test."""

    validation: int
    test: int

    def assign(
        self, rows: npt.NDArray[np.int64], times: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.int64]:
        """0, 1 or 2 (train, validation, test) for each row number."""
        return (rows >= self.validation).astype(np.int64) + (rows >= self.test)

    def to_dict(self) -> dict[str, Any]:
        """The split as JSON values."""
        return {
            "kind": "time",
            "validation_from_row": self.validation,
            "test_from_row": self.test,
        }


@dataclass(frozen=True)
class TimeSplit:
    """A log with a time column: times from `validation` on validate, from `test` on test."""

    validation: float
    test: float

    def assign(
        self, rows: npt.NDArray[np.int64], times: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.int64]:
        """0, 1 or 2 (train, validation, test) for each time, in seconds since 1970."""
        if times is None:
            raise ValueError("the log has no time column")
        return (times >= self.validation).astype(np.int64) + (times >= self.test)

    def to_dict(self) -> dict[str, Any]:
        """The split as JSON values."""
        return {
            "kind": "time",
            "validation_from_second": self.validation,
            "test_from_second": self.test,
        }


def last_day(times: Iterable[npt.NDArray[np.float64]]) -> TimeSplit:
    """The split in which the last day (UTC) is half validation, half test, the earlier half first.

    Memory is that of one day's seconds, whatever the number of rows; rows need no order.

    Args:
        times: Seconds since 1970, in pieces.

    Raises:
        DataError: There is no row, or only one day.
    """
    day, rows, before = -math.inf, np.zeros(DAY_SECONDS, np.int64), False
    for piece in times:
        days = np.floor(piece / DAY_SECONDS)
        latest = days.max(initial=-math.inf)
        if latest > day:
            before |= day > -math.inf
            day, rows = float(latest), np.zeros(DAY_SECONDS, np.int64)
        before |= bool((days < day).any())
        second = np.floor(piece[days == day] - day * DAY_SECONDS).astype(np.int64)
        rows += np.bincount(second, minlength=DAY_SECONDS)
    if not before:
        raise DataError("a split by time needs more than one day of rows")
    # The first second at which at least half of the day's rows are past.
    past = np.cumsum(rows) - rows
    middle = int(np.searchsorted(past, (rows.sum() + 1) // 2, side="left"))
    return TimeSplit(day * DAY_SECONDS, day * DAY_SECONDS + middle)
