"""What a plan needs to know of a log: how many tokens of each table were seen how often."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

BLOCK = 1 << 20  # supports counted at a time
SMALL = 1 << 16  # supports below it are counted, larger ones sorted


@dataclasses.dataclass(frozen=True)
class TableStats:
    """Support histogram of one table, from training rows.

    Attributes:
        table: The table's name.
        supports: Distinct support values, descending, int64 [k].
        counts: Number of tokens with that support, int64 [k].
    """

    table: str
    supports: I64
    counts: I64

    @classmethod
    def of_supports(cls, table: str, supports: npt.ArrayLike) -> TableStats:
        """From the support of every token, in any order; zeros are left out."""
        array = np.asarray(supports, dtype=np.int64)
        small, large = np.zeros(SMALL, np.int64), [np.zeros(0, np.int64)]
        # Block by block: sorting all supports would take as much memory again.
        for start in range(0, len(array), BLOCK):
            block = array[start : start + BLOCK]
            small += np.bincount(block[block < SMALL], minlength=SMALL)
            large.append(block[block >= SMALL])
        values, counts = np.unique(np.concatenate(large), return_counts=True)
        few = np.flatnonzero(small)
        few = few[few > 0]
        return cls(
            table,
            np.concatenate([values[::-1], few[::-1]]),
            np.concatenate([counts[::-1], small[few[::-1]]]).astype(np.int64),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens seen at least once."""
        return int(self.counts.sum())

    def tokens_with(self, min_support: int) -> int:
        """Number of tokens seen at least `min_support` times."""
        return int(self.counts[self.supports >= min_support].sum())

    def support_of_rank(self, rank: int) -> int:
        """Support of the `rank`-th most frequent token (0 = the most frequent), 0 past the end."""
        position = int(np.searchsorted(np.cumsum(self.counts), rank, side="right"))
        return int(self.supports[position]) if position < len(self.supports) else 0


@dataclasses.dataclass(frozen=True)
class LogStats:
    """Stats of a whole log: one `TableStats` per table, by name."""

    tables: Mapping[str, TableStats]

    @classmethod
    def of(cls, tables: Sequence[TableStats]) -> LogStats:
        """From the tables' stats."""
        return cls({stats.table: stats for stats in tables})

    @classmethod
    def from_dataset(cls, dataset: Any) -> LogStats:
        """From anything with `schema.features` and `support_histogram(name)`."""
        return cls.of(
            [
                TableStats(feature.name, *dataset.support_histogram(feature.name))
                for feature in dataset.schema.features
            ]
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of the training vocabulary, all tables."""
        return sum(stats.num_tokens for stats in self.tables.values())

    @property
    def num_rows(self) -> int:
        """Rows of the log: occurrences in a table with one token per row, the least there is."""
        return min((int((s.supports * s.counts).sum()) for s in self.tables.values()), default=0)

    def threshold(self, tokens: int) -> int:
        """The smallest support s >= 1 such that at most `tokens` tokens have support >= s."""
        supports = np.unique(np.concatenate([s.supports for s in self.tables.values()]))
        total = 0
        chosen = int(supports[-1]) + 1 if len(supports) else 1
        for support in supports[::-1]:
            total += sum(int(s.counts[s.supports == support].sum()) for s in self.tables.values())
            if total > tokens:
                break
            chosen = int(support)
        return chosen
