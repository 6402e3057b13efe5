"""A smaller dimension: every token keeps a private row, of fewer floats."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from lma.allocation.full import FullAllocation
from lma.allocation.tables import Budget, Table, sizes_of
from lma.errors import BudgetError
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable

# One step of this method is a float for every token: "16x" of 16 floats is meant to be one float,
# and must not fail for the header and the tables' rows for unseen values. Others fit exactly.
TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class LowDimension:
    """The largest dimension whose full tables fit the budget, or miss it by less than 1 %.

    The allocation's tables have that dimension, and a model is built around it: ask the
    collection for `embedding_dim` after it was made.

    Attributes:
        dim: The dimension; None takes the largest that the budget pays for.
    """

    name: ClassVar[str] = "low dimension"
    dim: int | None = None

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> FullAllocation:
        """Full tables of the reduced dimension (never more than the tables ask for)."""
        dim = self.dim
        if dim is None:
            if budget is None:
                raise ValueError("low dimension needs a budget, a compression or a dim")
            tokens = sum(sizes_of(tables, "low dimension"))
            # A dimension that is no divisor of 64 has its scales for a few floats less.
            floats = budget.floats(8 * 4, 64) * (1 + TOLERANCE)
            dim = int(floats // max(1, tokens))
            if dim < 1:
                raise BudgetError(
                    f"low dimension: {budget.bytes} bytes are less than one float for each of "
                    f"{tokens} tokens"
                )
        return FullAllocation(
            [
                dataclasses.replace(table, embedding_dim=min(dim, table.embedding_dim))
                for table in tables
            ]
        )
