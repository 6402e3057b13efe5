"""Private rows for frequent tokens, one shared row per table for all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group
from lma.allocation.tables import Budget, Table, shared_dim, sizes_of
from lma.errors import BudgetError
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable


@dataclasses.dataclass(frozen=True)
class FrequencyCutoff:
    """Tokens below a support threshold read their table's out-of-vocabulary row.

    One threshold for all tables, the lowest whose rows fit the budget. Ids must be ranked by
    support, so that "frequent" is a prefix of each table and costs no index.

    Attributes:
        dim: Floats of a row, at most the tables' own dimension, which None takes; as with
            `LowDimension`, a model is built around it.
    """

    name: ClassVar[str] = "frequency cut-off"
    dim: int | None = None

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> FrequencyCutoffAllocation:
        """The rows that the budget pays for, to the tokens seen most often."""
        if budget is None or stats is None:
            raise ValueError("frequency cut-off needs a budget and the log's stats")
        dim = min(self.dim or tables[0].embedding_dim, shared_dim(tables, "frequency cut-off"))
        tables = [dataclasses.replace(table, embedding_dim=dim) for table in tables]
        sizes = sizes_of(tables, "frequency cut-off")
        total = budget.floats(8 * (5 + len(tables)), dim) // dim
        private = total - len(tables)
        if private < 0:
            raise BudgetError(
                f"frequency cut-off: {budget.bytes} bytes hold {total} rows of {dim} floats, "
                f"{len(tables)} tables need one each"
            )
        kept = kept_tokens([stats.tables[table.name] for table in tables], private)
        kept = [min(count, size) for count, size in zip(kept, sizes, strict=True)]
        return FrequencyCutoffAllocation(tables, kept)


def kept_tokens(stats: Sequence[object], places: int) -> list[int]:
    """How many tokens of each table are among the `places` most frequent of all.

    Ties at the threshold go to the tables in order, so that every place is used.
    """
    typed = LogStats.of(stats)  # type: ignore[arg-type]
    threshold = typed.threshold(places)
    kept = [t.tokens_with(threshold) for t in typed.tables.values()]
    left = places - sum(kept)
    # The next support that occurs below the threshold, which need not be the next number.
    tied = max(
        int(t.supports[t.supports < threshold].max(initial=0)) for t in typed.tables.values()
    )
    for i, table in enumerate(typed.tables.values()):
        more = min(left, table.tokens_with(tied) - kept[i])
        kept[i] += more
        left -= more
    return kept


class FrequencyCutoffAllocation(Allocation):
    """row(id) = base + min(id, kept): the last row of each table is its out-of-vocabulary row."""

    kept: Tensor
    bases: Tensor
    fixed = ("kept",)

    def __init__(self, tables: Sequence[Table], kept: Sequence[int]) -> None:
        rows = [count + 1 for count in kept]
        dim = shared_dim(tables, "frequency cut-off")
        super().__init__(tables, sum(rows), dim, {"method": 4})
        self.arguments = {"kept": list(kept)}
        self.register_buffer("kept", torch.tensor(list(kept), dtype=torch.int64))
        self._derived("bases", [sum(rows[:i]) for i in range(len(rows))])

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """The row of every token."""
        row = torch.minimum(ids, self.kept[numbers])
        return (self.bases[numbers] + row).unsqueeze(-1)
