"""Which rows train, validate and test: by time, or by a seeded hash of the row number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lma.hashing import combine, hash_string, reduce_range, stream_seed

SPLITS: Final = ("train", "validation", "test")
RANDOM_SHARES: Final = (8, 1, 1)  # tenths


@dataclass(frozen=True)
class RandomSplit:
    """80/10/10 by a hash of (seed, row number): a row's split depends on nothing else."""

    seed: int

    def assign(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """0, 1 or 2 (train, validation, test) for each row number."""
        state = np.uint64(stream_seed(self.seed, hash_string("split")))
        tenth = reduce_range(combine(state, rows), 10)
        return np.searchsorted(np.cumsum(RANDOM_SHARES), tenth, side="right").astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """The split as JSON values."""
        return {"kind": "random", "seed": self.seed, "tenths": list(RANDOM_SHARES)}


@dataclass(frozen=True)
class TimeSplit:
    """Rows from `validation` on validate, rows from `test` on test, earlier ones train."""

    validation: int
    test: int

    def assign(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """0, 1 or 2 (train, validation, test) for each row number."""
        return (rows >= self.validation).astype(np.int64) + (rows >= self.test)

    def to_dict(self) -> dict[str, Any]:
        """The split as JSON values."""
        return {"kind": "time", "validation_from_row": self.validation, "test_from_row": self.test}
