"""The counting pass of `ContextCodeBuilder`: supports and labels of all tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lma.signatures.row_batch import RowBatch
from lma.signatures.row_sample import RowSample
from lma.signatures.tokens import Tokens, take_in

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class ContextCount:
    """Rows and labels of a log, and of each of its tokens.

    Attributes:
        tokens: The tokens of every table, and their supports.
        labels: Sum of every token's labels, per table; [slots or more].
        num_rows: Rows.
        num_labels: Rows of label 1.
        longest: Most entries of a row.
        sample: Rows that are iterated on before the log is read again.
    """

    def __init__(self, tokens: Mapping[str, Tokens], seed: int) -> None:
        self.tokens = tokens
        self.sample = RowSample(seed)
        self.labels = {name: np.zeros(len(table.supports)) for name, table in tokens.items()}
        self.num_rows = 0
        self.num_labels = 0
        self.longest = 0

    @property
    def base_rate(self) -> float:
        """Mean label."""
        return self.num_labels / max(self.num_rows, 1)

    def add(self, batch: RowBatch, label: F64, sampled: I64, first_row: int, who: str) -> None:
        """Count some rows.

        Args:
            batch: The rows.
            label: 0 or 1 per row.
            sampled: Positions of the rows that the sample may keep.
            first_row: Number of the batch's first row in the log.
            who: Name for error messages.
        """
        from lma.kernels.cpu.signatures_bags import add_labels

        slots = take_in(self.tokens, batch, who)
        lengths = np.diff(batch.offsets)
        per_row = lengths.reshape(-1, batch.num_rows).sum(0) if batch.num_rows else lengths
        self.longest = max(self.longest, int(per_row.max(initial=0)))
        row = np.repeat(np.arange(len(lengths)), lengths) % max(batch.num_rows, 1)
        for number, (name, table) in enumerate(self.tokens.items()):
            self._make_room(name, len(table.supports))
            where = batch.feature(number)
            add_labels(slots[where], row[where], label, self.labels[name])
        self.num_labels += int(label.sum())
        self.num_rows += batch.num_rows
        self.sample.add(batch, first_row, sampled)

    def _make_room(self, name: str, need: int) -> None:
        have = len(self.labels[name])
        if need > have:
            room = np.zeros(max(need, have * 3 // 2))
            room[:have] = self.labels[name]
            self.labels[name] = room

    def merge(self, other: ContextCount) -> None:
        """Add what another counted."""
        for name, table in self.tokens.items():
            slots = table.merge(other.tokens[name])
            self._make_room(name, len(table.supports))
            self.labels[name][slots] += other.labels[name][: len(slots)]
        self.num_labels += other.num_labels
        self.num_rows += other.num_rows
        self.longest = max(self.longest, other.longest)
        self.sample.merge(other.sample)

    def reduce(
        self,
        over_all: Callable[[npt.NDArray[np.generic], str], None],
        gather: Callable[[RowSample], Sequence[RowSample]],
    ) -> None:
        """Merge with those of other processes; see `ContextCodeBuilder.reduce`."""
        for name, table in self.tokens.items():
            over_all(table.supports, "sum")
            over_all(self.labels[name][: len(table.supports)], "sum")
        totals, longest = np.array([self.num_rows, self.num_labels]), np.array([self.longest])
        over_all(totals, "sum")
        over_all(longest, "max")
        self.num_rows, self.num_labels = totals.tolist()
        self.longest = int(longest[0])
        whole, *others = gather(self.sample)
        for other in others:
            whole.merge(other)
        self.sample = whole


__all__ = ["ContextCount"]
