"""The hashing trick: tokens share whole rows at random (Weinberger et al. 2009)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group
from lma.allocation.tables import Budget, Table, shared_dim, sizes_of
from lma.errors import BudgetError
from lma.hashing import stream_seeds
from lma.kernels.layout import Column, Kind
from lma.kernels.rule import Rule, hashed_layout, unsigned_rule
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable


@dataclasses.dataclass(frozen=True)
class HashingTrick:
    """row = range(hash(key), rows).

    Attributes:
        per_table: Every table has rows of its own, in proportion to its tokens and at least one;
            a table with as many rows as tokens is kept whole. False: one set of rows for all.
        seed: Seed of the hash function.
    """

    name: ClassVar[str] = "hashing trick"
    per_table: bool = True
    seed: int = 0

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> HashingTrickAllocation:
        """As many rows as the budget pays for."""
        if budget is None:
            raise ValueError("the hashing trick needs a budget or a compression")
        dim = shared_dim(tables, "the hashing trick")
        overhead = 8 * (6 + (len(tables) if self.per_table else 1))
        total = budget.floats(overhead, dim) // dim
        if not self.per_table:
            rows = [total]
        else:
            rows = share_rows(sizes_of(tables, "the hashing trick"), total)
        if total < len(rows):
            raise BudgetError(
                f"the hashing trick: {budget.bytes} bytes hold {total} rows of {dim} floats, "
                f"at least {len(rows)} are needed"
            )
        return HashingTrickAllocation(tables, rows, self.seed)


def share_rows(sizes: Sequence[int], total: int) -> list[int]:
    """Rows per table, in proportion to tokens, at least 1 and at most one per token.

    The smallest tables, which proportion would round to nothing, are served first.
    """
    rows = [0] * len(sizes)
    left, tokens = total, sum(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        share = left * sizes[i] // tokens if tokens else 0
        rows[i] = min(max(1, share), max(1, sizes[i]))
        left, tokens = left - rows[i], tokens - sizes[i]
    return rows


class HashingTrickAllocation(Allocation):
    """One block of `dim` floats per row; `rows` has one entry per table, or one for all."""

    seeds: Tensor
    rows: Tensor
    layout: Tensor
    fixed = ("rows",)

    def __init__(self, tables: Sequence[Table], rows: Sequence[int], seed: int) -> None:
        dim = shared_dim(tables, "the hashing trick")
        super().__init__(tables, sum(rows), dim, {"seed": seed, "method": 2})
        self.arguments = {"rows": list(rows), "seed": seed}
        own = len(rows) == len(tables)
        spread = list(rows) if own else [rows[0]] * len(tables)
        bases = [sum(rows[:i]) if own else 0 for i in range(len(tables))]
        self.register_buffer("rows", torch.tensor(list(rows), dtype=torch.int64))
        self._derived("seeds", torch.from_numpy(stream_seeds(seed, 1).view("int64")))
        sizes = [table.num_embeddings for table in tables]
        whole = [own and count == size for count, size in zip(spread, sizes, strict=True)]
        layout = hashed_layout(self.salts, [dim] * len(tables), spread)
        layout[:, Column.HASHED_BASE] = torch.tensor(bases, dtype=torch.int64) * dim
        layout[torch.tensor(whole, dtype=torch.bool), Column.KIND] = Kind.WHOLE
        self._derived("layout", layout)

    def rule(self) -> Rule:
        """One chunk per row; tables that are held whole are not hashed."""
        return unsigned_rule(self.layout, self.seeds, self.block_size, self.block_size)

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """The row of every token."""
        return self._chunk_starts(self.rule(), ids, numbers, group) // self.block_size
