"""Quotient-remainder trick: compositional embeddings (Shi et al. 2020, arXiv 1909.02107)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lma.allocation.base import Allocation, Group
from lma.allocation.tables import Budget, Table, shared_dim, sizes_of
from lma.errors import BudgetError
from lma.kernels.reference.quantised import Quantised, read_rows
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable


@dataclasses.dataclass(frozen=True)
class QuotientRemainder:
    """vector = remainder row (id mod m) * quotient row (id div m), element by element.

    m is one number of remainder rows per table, chosen so that all tables are compressed by the
    same factor; tables too small to gain keep their rows.

    Attributes:
        seed: Unused by the places; kept so that all methods have one.
    """

    name: ClassVar[str] = "quotient-remainder"
    seed: int = 0

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> QuotientRemainderAllocation:
        """The least compression c, with ceil(size / c) remainder rows per table, that fits."""
        if budget is None:
            raise ValueError("quotient-remainder needs a budget or a compression")
        dim = shared_dim(tables, "quotient-remainder")
        sizes = sizes_of(tables, "quotient-remainder")
        total = budget.floats(8 * (5 + len(tables)), dim) // dim
        # Rows fall, then rise again, as the factor grows past sqrt(size): search the fall.
        factor = 1.0
        largest = max(sizes, default=1)
        while sum(_rows(size, _remainders(size, factor)) for size in sizes) > total:
            factor *= 1.01
            if factor > largest:
                raise BudgetError(
                    f"quotient-remainder: {budget.bytes} bytes hold {total} rows of {dim} floats, "
                    f"these tables need more even at two roots of their size each"
                )
        return QuotientRemainderAllocation(tables, [_remainders(s, factor) for s in sizes])


def _remainders(size: int, factor: float) -> int:
    """Remainder rows of a table compressed by `factor`; not fewer than its square root."""
    return max(1, min(size, max(round(size / factor), math.isqrt(size))))


def _rows(size: int, remainders: int) -> int:
    """Rows of both tables; a whole table needs no quotient."""
    return remainders if remainders >= size else remainders + -(-size // remainders)


class QuotientRemainderAllocation(Allocation):
    """`locations` are the remainder's; the quotient row multiplies what stands there."""

    remainders: Tensor
    bases: Tensor
    whole: Tensor
    fixed = ("remainders",)

    def __init__(self, tables: Sequence[Table], remainders: Sequence[int]) -> None:
        sizes = sizes_of(tables, "quotient-remainder")
        rows = [_rows(size, m) for size, m in zip(sizes, remainders, strict=True)]
        dim = shared_dim(tables, "quotient-remainder")
        super().__init__(tables, sum(rows), dim, {"method": 5})
        self.arguments = {"remainders": list(remainders)}
        self._counts = list(zip(remainders, rows, strict=True))
        bases = [sum(rows[:i]) for i in range(len(rows))]
        self.register_buffer("remainders", torch.tensor(list(remainders), dtype=torch.int64))
        self._derived("bases", bases)
        whole = [int(m >= size) for m, size in zip(remainders, sizes, strict=True)]
        self._derived("whole", whole)

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """The remainder row of every token."""
        return (self.bases[numbers] + ids % self.remainders[numbers]).unsqueeze(-1)

    def vectors(
        self, weight: Tensor, ids: Tensor, numbers: Tensor, group: Group, sparse: bool
    ) -> Tensor:
        """Products of the two rows."""
        return self._products(
            lambda rows: F.embedding(rows, weight, sparse=sparse), ids, numbers, group
        )

    def quantised_vectors(
        self, weight: Quantised, ids: Tensor, numbers: Tensor, group: Group
    ) -> Tensor:
        """Products of the two rows."""
        return self._products(lambda rows: read_rows(weight, rows), ids, numbers, group)

    def _products(
        self, read: Callable[[Tensor], Tensor], ids: Tensor, numbers: Tensor, group: Group
    ) -> Tensor:
        count = self.remainders[numbers]
        quotient = self.bases[numbers] + count + ids // count
        whole = self.whole[numbers] == 1
        remainder = read(self.blocks(ids, numbers, group).squeeze(-1))
        # A whole table has no quotient row: read some row that exists and take ones instead.
        factor = read(quotient.masked_fill(whole, 0))
        return remainder * factor.masked_fill(whole.unsqueeze(-1), 1.0)

    @property
    def whole_rows(self) -> bool:
        """Never: a vector is a product."""
        return False

    def reset_weight(self, weight: Tensor, std: float) -> None:
        """Remainders N(0, std^2), quotients N(1, std^2): products start as other vectors do."""
        nn.init.normal_(weight, std=std)
        for base, (count, rows) in zip(self.bases.tolist(), self._counts, strict=True):
            weight.data[base + count : base + rows] += 1.0
