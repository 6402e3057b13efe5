"""How often 64-bit ids occur in an unbounded stream: exactly, or in bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lma.errors import LmaError
from lma.signatures.stats import TableStats
from lma.signatures.tokens import KeyedTokens

I64 = npt.NDArray[np.int64]


class SupportCounter:
    """Supports of the ids of one table.

    Exact as long as all ids fit. With `max_tokens`, ids beyond it are made room for as Misra and
    Gries (1982) do, many at a time: when the limit is passed, the count at the middle rank is
    taken off every count and what falls to zero is forgotten. A support is then too small by at
    most `error`, never too large, and

        error <= 2 * (values seen) / max_tokens,

    so every id that occurs more often than that is there.

    Args:
        table: Name of the table, for the stats.
        max_tokens: Most ids to hold; None: all.

    Memory: 20 to 32 bytes per id held.
    """

    def __init__(self, table: str, max_tokens: int | None = None) -> None:
        if max_tokens is not None and max_tokens < 2:
            raise ValueError(f"SupportCounter: max_tokens must be at least 2, found {max_tokens}")
        self.table = table
        self.max_tokens = max_tokens
        self.error = 0
        self.num_values = 0
        self._tokens = KeyedTokens(table)

    def update(self, ids: npt.ArrayLike) -> None:
        """Count ids, int64 [n]; an id that one row repeats should be given once."""
        values = np.asarray(ids)
        if values.dtype.kind not in "iu" or values.dtype == np.uint64 or values.ndim != 1:
            raise TypeError(
                f"SupportCounter.update: ids must be int64 [n], found {values.dtype} "
                f"{list(values.shape)}"
            )
        values = np.ascontiguousarray(values, dtype=np.int64)
        # In pieces, so that one huge batch does not outgrow the limit by itself.
        step = len(values) if self.max_tokens is None else max(1, self.max_tokens // 2)
        for start in range(0, len(values), max(step, 1)):
            piece = values[start : start + step]
            self._tokens.count(piece, self._tokens.locate(piece))
            self._prune()
        self.num_values += len(values)

    def merge(self, other: SupportCounter) -> SupportCounter:
        """Add another's counts; errors add up. Returns self.

        Raises:
            LmaError: The other one counts another table, or is this one.
        """
        if other is self:
            raise LmaError("cannot merge a counter with itself: what it saw would count twice")
        if other.table != self.table:
            raise LmaError(
                f"cannot merge counters of different tables: {self.table!r} and {other.table!r}"
            )
        self._tokens.merge(other._tokens)
        self.num_values += other.num_values
        self.error += other.error
        self._prune()
        return self

    def _prune(self) -> None:
        if self.max_tokens is None or self._tokens.num_slots <= self.max_tokens:
            return
        supports = self._tokens.supports
        keep = self.max_tokens // 2
        cut = int(np.partition(supports, len(supports) - keep - 1)[len(supports) - keep - 1])
        left = supports > cut
        self._tokens = KeyedTokens(
            self.table, self._tokens.ids()[left], supports[left] - cut, grows=True
        )
        self.error += cut

    @property
    def num_tokens(self) -> int:
        """Ids held."""
        return self._tokens.num_slots

    def stats(self) -> TableStats:
        """Histogram of the supports held, each too small by at most `error`."""
        return TableStats.of_supports(self.table, self._tokens.supports)

    def most_frequent(self, count: int | None = None, min_support: int = 1) -> tuple[I64, I64]:
        """Ids with the largest supports, ties by id, and those supports.

        Args:
            count: How many at most; None: all.
            min_support: Leave out ids below it.
        """
        ids, supports = self._tokens.ids(), self._tokens.supports
        chosen = np.nonzero(supports >= min_support)[0]
        order = chosen[np.lexsort((ids[chosen], -supports[chosen]))][:count]
        return ids[order], supports[order]

    def candidates(self, count: int | None = None, min_support: int = 1) -> tuple[I64, int]:
        """Ids among which the most frequent ones lie, to be counted exactly in a second pass.

        A true support is at most `error` above the one held. So all ids that belong among the
        first `count`, or reach `min_support`, are held and within `error` of the last one wanted,
        if that one's support is above `error`; an id of at most `error` rows may be missing.

        Args:
            count: How many ids are wanted; None: all.
            min_support: Rows in which a wanted id occurs at least.

        Returns:
            The ids, largest support held first; and 0 if none can be missing, else the most rows
            in which a missing one can occur.
        """
        wanted, supports = self.most_frequent(count, min_support)
        if count == 0 or not self.error:
            return wanted, 0
        least = min_support
        if count is not None and count <= len(wanted):
            least = max(least, int(supports[-1]))
        ids, _ = self.most_frequent(None, max(1, least - self.error))
        return ids, 0 if least > self.error else self.error


__all__ = ["SupportCounter"]
