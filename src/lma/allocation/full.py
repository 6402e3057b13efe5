"""Full tables: no two tokens share a place. The allocation that everything is measured against."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group, largest_block
from lma.allocation.tables import Budget, Table, sizes_of
from lma.errors import BudgetError
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable


@dataclasses.dataclass(frozen=True)
class Full:
    """One private row per token, as `torch.nn.EmbeddingBag` has. Takes no budget."""

    name: ClassVar[str] = "full"

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None = None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> FullAllocation:
        """Rows of all tables one after the other; `BudgetError` if `budget` is smaller."""
        allocation = FullAllocation(tables)
        needed = allocation.num_bytes().serving
        if budget is not None and needed > budget.bytes:
            raise BudgetError(f"full tables take {needed} bytes, the budget is {budget.bytes}")
        return allocation


class FullAllocation(Allocation):
    """Row `id` of table t is blocks `base_t + id * chunks_t + (0 ... chunks_t - 1)`."""

    bases: Tensor

    def __init__(self, tables: Sequence[Table]) -> None:
        sizes = sizes_of(tables, "full")
        dims = [table.embedding_dim for table in tables]
        block = largest_block(dims)
        rows = [size * dim // block for size, dim in zip(sizes, dims, strict=True)]
        super().__init__(tables, sum(rows), block, {})
        self._derived("bases", [sum(rows[:i]) for i in range(len(rows))])

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Private blocks of every token."""
        chunks = group[0] // self.block_size
        first = self.bases[numbers] + ids * chunks
        return first.unsqueeze(-1) + torch.arange(chunks, device=ids.device)

    @property
    def private_rows(self) -> bool:
        """Wherever all tables have one dimension."""
        return self.whole_rows
