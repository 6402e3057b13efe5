"""Controls: a row for every token, started from the vectors that learned codes quantise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from lma.allocation import Budget, Full, LowDimension, Table
from lma.allocation.auto import FORMS
from lma.allocation.full import FullAllocation
from lma.allocation.tables import sizes_of
from lma.nn.for_log import similarity_of
from lma.nn.memory import SharedMemory
from lma.signatures import LogStats, SignatureConfig, SignatureTable
from lma.signatures.context import LABEL_FLOOR
from lma.signatures.fit import fit_context_codes
from lma.training.config import ConfigError

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class FromContexts:
    """Rows of their own for all tokens, full or of a low dimension, with a head start.

    What learned codes know of a log, given to tables that keep every token apart: what `lma` has
    beyond these it owes to sharing, not to what it was told.

    Attributes:
        full: Full tables, without a budget; else the largest dimension that the budget holds.
        std: Standard deviation of the initial floats, over a table's occurrences.
        similarity: Of the contexts; None: what `lma` takes for the log.
        seed: Of the projections.
    """

    name: ClassVar[str] = "from contexts"
    full: bool = True
    std: float = 0.1
    similarity: str | None = None
    seed: int = 0

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None = None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> FullAllocation:
        """As `Full` and `LowDimension`."""
        return (Full() if self.full else LowDimension()).allocate(tables, budget)

    def fill_(self, memory: SharedMemory, log: Any, stats: LogStats) -> None:
        """Write the leading directions of every token's context vector into its row.

        Tokens without training rows, or with too few labels to be told by, start from zero, the
        average token.
        """
        similarity = self.similarity or similarity_of(log)
        if similarity not in FORMS:
            raise ConfigError(
                f"{self.name}: similarity must be one of {list(FORMS)}, found {similarity!r}"
            )
        form = FORMS[similarity]
        config = SignatureConfig(
            similarity=similarity,
            kind="learned",
            dim=form.dim,
            passes=1,
            shrinkage=form.shrinkage,
            seed=self.seed,
        )
        least = LABEL_FLOOR if similarity == "labelled_context" else 1
        known = {table.name: stats.tables[table.name].tokens_with(least) for table in memory.tables}
        builder = fit_context_codes(log, config, num_signed=known)
        sizes = dict(zip(known, sizes_of(memory.tables, self.name), strict=True))
        weight = memory.weight.detach().view(-1)
        for table in memory.tables:
            count, dim = known[table.name], table.embedding_dim
            rows = np.zeros((sizes[table.name], dim), np.float32)
            found = builder.vectors(table.name)[:count, :dim]
            rows[:count, : found.shape[1]] = self._scaled(found, _supports(stats, table, count))
            places = memory.allocation.places(table.name, torch.arange(len(rows)))
            weight[places.reshape(-1)] = torch.from_numpy(rows).view(-1).to(weight.dtype)

    def _scaled(self, vectors: F32, supports: I64) -> F32:
        """With a mean square of std^2 over a table's occurrences."""
        if not vectors.size:
            return vectors
        square = np.average((vectors.astype(np.float64) ** 2).mean(1), weights=supports)
        return np.asarray(vectors * (self.std / max(square, 1e-30) ** 0.5), np.float32)


def _supports(stats: LogStats, table: Table, count: int) -> I64:
    """Training rows of the `count` most frequent tokens, descending."""
    of_table = stats.tables[table.name]
    return np.repeat(of_table.supports, of_table.counts)[:count]


__all__ = ["FromContexts"]
