"""ROBE: random offset block embedding (Desai et al. 2022), one circular array for all tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group, largest_block
from lma.allocation.hashed import blocks_for
from lma.allocation.tables import Budget, Table
from lma.hashing import stream_seeds
from lma.kernels.rule import Rule, hashed_layout, unsigned_rule
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable


@dataclasses.dataclass(frozen=True)
class Robe:
    """Chunk j reads `chunk_size` consecutive floats from a hashed start, around the end.

    Unlike blocks, the runs may begin anywhere and overlap.

    Attributes:
        chunk_size: Floats per run (Z in the paper); must divide every table's dimension.
        seed: Seed of the hash functions.
    """

    name: ClassVar[str] = "robe"
    chunk_size: int = 8
    seed: int = 0

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> RobeAllocation:
        """One array of as many floats as the budget pays for."""
        size = blocks_for(budget, 1, 7, self.name)
        return RobeAllocation(tables, size, self.chunk_size, self.seed)


class RobeAllocation(Allocation):
    """place(v, j, i) = (range(hash(seed_j, key), m) + i) mod m."""

    seeds: Tensor
    layout: Tensor

    def __init__(self, tables: Sequence[Table], size: int, chunk_size: int, seed: int) -> None:
        dims = [table.embedding_dim for table in tables]
        largest_block(dims, chunk_size)
        super().__init__(tables, size, 1, {"seed": seed, "method": 3, "chunk_size": chunk_size})
        self.arguments = {"size": size, "chunk_size": chunk_size, "seed": seed}
        self.chunk_size = chunk_size
        seeds = stream_seeds(seed, max(dims, default=0) // chunk_size)
        self._derived("seeds", torch.from_numpy(seeds.view("int64")))
        self._derived("layout", hashed_layout(self.salts, dims, size))

    def rule(self) -> Rule:
        """Plain hashes; runs begin at any float."""
        return unsigned_rule(self.layout, self.seeds, self.chunk_size, 1)

    def locations(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Places of every float of every vector."""
        start = self._chunk_starts(self.rule(), ids, numbers, group).unsqueeze(-1)
        run = torch.arange(self.chunk_size, device=ids.device)
        return ((start + run) % self.num_blocks).flatten(-2)

    @property
    def whole_rows(self) -> bool:
        """Never: runs are not aligned."""
        return False
