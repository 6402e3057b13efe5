"""Mixed dimension embeddings: popular fields are wide (Ginart et al. 2019, arXiv 1909.11810)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from lma.allocation.computed import ComputedAllocation, Tokens
from lma.allocation.low_dimension import TOLERANCE
from lma.allocation.tables import Budget, Table, shared_dim, sizes_of
from lma.errors import BudgetError
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable


@dataclasses.dataclass(frozen=True)
class MixedDimension:
    """vector = row(id) P_f, with rows of d_f = lambda p_f^alpha floats in field f (algorithm 3).

    p_f is the field's popularity, the mean number of times that one of its tokens is looked up;
    lambda is the largest that the budget pays for. P_f projects rows to the dimension of the
    widest field, `max d_f`, never more than the tables ask for; like `LowDimension`, the
    allocation's tables have that one, and may miss the budget by 1 % where all d_f are 1. A field
    whose full rows take no more than narrow ones with their projection has full rows.

    Attributes:
        alpha: Temperature: 0 gives one dimension to all fields.
    """

    name: ClassVar[str] = "mixed dimension"
    alpha: float = 0.3

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> MixedDimensionAllocation:
        """Solve lambda for the budget.

        Without `stats` every field is taken to be looked up equally often: p_f = 1 / tokens.
        """
        if budget is None:
            raise ValueError("mixed dimension needs a budget or a compression")
        sizes = sizes_of(tables, "mixed dimension")
        dim = shared_dim(tables, "mixed dimension")
        lookups = [1.0] * len(tables)
        if stats is not None:
            seen = [stats.tables[table.name] for table in tables]
            lookups = [max(1.0, float(s.supports @ s.counts)) for s in seen]
        powers = [
            (count / max(1, size)) ** self.alpha for count, size in zip(lookups, sizes, strict=True)
        ]

        def dims(scale: float) -> list[int]:
            return _dims(sizes, [min(dim, max(1, round(scale * power))) for power in powers])

        room = budget.floats(8 * (5 + len(tables)))
        narrow, wide = 0.0, dim / min(powers)
        if _floats(sizes, dims(wide)) <= room:
            narrow = wide
        elif _floats(sizes, dims(narrow)) > room * (1 + TOLERANCE):
            raise BudgetError(
                f"mixed dimension: {budget.bytes} bytes are less than one float for each of "
                f"{sum(sizes)} tokens"
            )
        # Floats never fall as lambda grows; 60 halvings leave no other dimensions between.
        for _ in range(60):
            middle = (narrow + wide) / 2
            if _floats(sizes, dims(middle)) <= room:
                narrow = middle
            else:
                wide = middle
        chosen = dims(narrow)
        return MixedDimensionAllocation(
            [dataclasses.replace(table, embedding_dim=max(chosen)) for table in tables], chosen
        )


def _dims(sizes: Sequence[int], dims: Sequence[int]) -> list[int]:
    """`dims`, where narrow rows and their projection are less than full rows."""
    base = max(dims)
    return [
        d if size * d + d * base < size * base else base
        for size, d in zip(sizes, dims, strict=True)
    ]


def _floats(sizes: Sequence[int], dims: Sequence[int]) -> int:
    """Floats of all rows and projections."""
    base = max(dims)
    return sum(
        size * d + (d * base if d < base else 0) for size, d in zip(sizes, dims, strict=True)
    )


class MixedDimensionAllocation(ComputedAllocation):
    """Arrays: rows [tokens, d_f] of each table, then P_f [d_f, dim] of those narrower than dim.

    Args:
        tables: The tables, of one dimension.
        dims: d_f of each, at most that dimension.
    """

    dims: Tensor
    fixed = ("dims",)

    def __init__(self, tables: Sequence[Table], dims: Sequence[int]) -> None:
        sizes = sizes_of(tables, "mixed dimension")
        dim = shared_dim(tables, "mixed dimension")
        narrow = [number for number, d in enumerate(dims) if d < dim]
        shapes = [(size, d) for size, d in zip(sizes, dims, strict=True)]
        super().__init__(tables, shapes + [(dims[t], dim) for t in narrow], {"method": 6})
        self.arguments = {"dims": list(dims)}
        # Which array projects a table's rows.
        self._projections = {number: len(tables) + i for i, number in enumerate(narrow)}
        self.register_buffer("dims", torch.tensor(list(dims), dtype=torch.int64))

    def compute(self, arrays: Sequence[Tensor], tokens: Sequence[Tokens]) -> Tensor:
        """Rows, projected where they are narrow (algorithm 1)."""
        out = []
        for number, ids, _ in tokens:
            rows = arrays[number].index_select(0, ids)
            if number in self._projections:
                rows = rows @ arrays[self._projections[number]]
            out.append(rows)
        return torch.cat(out)

    def reset_weight(self, weight: Tensor, std: float) -> None:
        """Projections as Glorot; rows such that products are of variance std^2."""
        arrays = self.arrays(weight)
        for number, rows in enumerate(arrays[: len(self.tables)]):
            scale = std
            if number in self._projections:
                projection = arrays[self._projections[number]]
                nn.init.xavier_normal_(projection)
                d, dim = projection.shape
                # A sum of d products: std^2 = d * scale^2 * 2 / (d + dim).
                scale *= ((d + dim) / (2 * d)) ** 0.5
            nn.init.normal_(rows, std=scale)
