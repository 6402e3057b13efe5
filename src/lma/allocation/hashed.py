"""Random sharing, float by float or block by block: HashedNets' element hashing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group, largest_block
from lma.allocation.tables import Budget, Table
from lma.errors import BudgetError
from lma.hashing import stream_seeds
from lma.kernels.rule import Rule, hashed_layout, unsigned_rule
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable


@dataclasses.dataclass(frozen=True)
class Hashed:
    """Every chunk of every vector reads a block chosen by a hash of (token, chunk).

    `block_size=1` is HashedNets (Chen et al. 2015) applied to embeddings, "element hashing".

    Attributes:
        block_size: Floats per block; must divide every table's dimension.
        seed: Seed of the hash functions.
    """

    name: ClassVar[str] = "hashed"
    block_size: int = 1
    seed: int = 0

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> HashedAllocation:
        """All tables in one memory of as many blocks as the budget pays for."""
        return HashedAllocation(
            tables, blocks_for(budget, self.block_size, 6, self.name), self.block_size, self.seed
        )


def blocks_for(budget: Budget | None, block_size: int, settings: int, method: str) -> int:
    """Blocks that a budget pays for beside a header of `settings` int64 numbers."""
    if budget is None:
        raise ValueError(f"{method} needs a budget or a compression")
    num_blocks = budget.floats(8 * settings, block_size) // block_size
    if num_blocks < 1:
        raise BudgetError(
            f"{method}: {budget.bytes} bytes do not hold one block of {block_size} floats"
        )
    return num_blocks


class HashedAllocation(Allocation):
    """block_j = range(hash(seed_j, key), num_blocks)."""

    seeds: Tensor
    layout: Tensor

    def __init__(
        self, tables: Sequence[Table], num_blocks: int, block_size: int, seed: int
    ) -> None:
        dims = [table.embedding_dim for table in tables]
        largest_block(dims, block_size)
        super().__init__(tables, num_blocks, block_size, {"seed": seed, "method": 1})
        self.arguments = {"num_blocks": num_blocks, "block_size": block_size, "seed": seed}
        seeds = stream_seeds(seed, max(dims, default=0) // block_size)
        self._derived("seeds", torch.from_numpy(seeds.view("int64")))
        self._derived("layout", hashed_layout(self.salts, dims, num_blocks))

    def rule(self) -> Rule:
        """Plain hashes."""
        return unsigned_rule(self.layout, self.seeds, self.block_size, self.block_size)

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Hashed blocks of every token."""
        return self._chunk_starts(self.rule(), ids, numbers, group) // self.block_size
