"""TT-Rec: tables as products of three tensor-train cores (Yin et al. 2021, arXiv 2101.11714)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lma.allocation.computed import MAX_MULTIPLY_ADDS, ComputedAllocation, Tokens
from lma.allocation.tables import Budget, Table, sizes_of
from lma.errors import BudgetError
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable

Triple = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class TensorTrain:
    """vector = G1[i1] G2[i2] G3[i3], where id = (i1 n2 + i2) n3 + i3.

    Both ranks of a table are one number. Ranks grow together, one by one and the largest table's
    first, as far as the budget pays. A table is held whole as soon as its cores would take no
    fewer floats.

    Attributes:
        max_multiply_adds: Of one vector: caps the ranks.
    """

    name: ClassVar[str] = "tensor train"
    max_multiply_adds: int = MAX_MULTIPLY_ADDS

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> TensorTrainAllocation:
        """Ranks for the budget; `BudgetError` where rank 1 everywhere is too much."""
        if budget is None:
            raise ValueError("tensor train needs a budget or a compression")
        sizes = sizes_of(tables, "tensor train")
        trains = [Train.of(size, t.embedding_dim) for size, t in zip(sizes, tables, strict=True)]
        room = budget.floats(8 * (5 + len(tables)))
        ranks = [1] * len(trains)
        left = room - sum(train.floats(1) for train in trains)
        if left < 0:
            raise BudgetError(
                f"tensor train: {budget.bytes} bytes hold {max(0, room)} floats, cores of rank 1 "
                f"take {room - left}"
            )
        last = [train.last_rank(self.max_multiply_adds) for train in trains]
        # Round by round, the largest table first; one that cannot have one more is done.
        growing = sorted(range(len(trains)), key=lambda t: -trains[t].whole)
        while growing:
            for t in list(growing):
                more = trains[t].floats(ranks[t] + 1) - trains[t].floats(ranks[t])
                if ranks[t] == last[t] or more > left:
                    growing.remove(t)
                else:
                    ranks[t] += 1
                    left -= more
        ranks = [0 if t.is_whole(r) else r for t, r in zip(trains, ranks, strict=True)]
        return TensorTrainAllocation(tables, ranks)


class Train(NamedTuple):
    """The shape of one table's cores but for the rank.

    Attributes:
        tokens, dim: Of the table.
        rows: n1, n2, n3, with n1 n2 n3 >= tokens and every slice of every core in use.
        columns: d1, d2, d3, with d1 d2 d3 = dim.
    """

    tokens: int
    dim: int
    rows: Triple
    columns: Triple

    @classmethod
    def of(cls, tokens: int, dim: int) -> Train:
        """Factors as equal as can be."""
        n3 = _root(tokens, 3)
        n2 = _root(-(-tokens // n3), 2)
        n1 = -(-tokens // (n2 * n3))
        return cls(tokens, dim, (n1, n2, n3), _columns(dim))

    @property
    def whole(self) -> int:
        """Floats of the full table."""
        return self.tokens * self.dim

    def shapes(self, rank: int) -> list[tuple[int, int, int, int]]:
        """Shapes of the cores, [n, rank before, d, rank behind]."""
        (n1, n2, n3), (d1, d2, d3) = self.rows, self.columns
        # A rank above that of the outer cores would add floats and no function.
        r1, r2 = min(rank, n1 * d1), min(rank, n3 * d3)
        return [(n1, 1, d1, r1), (n2, r1, d2, r2), (n3, r2, d3, 1)]

    def _cores(self, rank: int) -> int:
        return sum(math.prod(shape) for shape in self.shapes(rank))

    def is_whole(self, rank: int) -> bool:
        """Whether cores of this rank take no fewer floats than the table."""
        return self._cores(rank) >= self.whole

    def floats(self, rank: int) -> int:
        """Floats of the cores, or of the full table where that is no more."""
        return min(self._cores(rank), self.whole)

    def last_rank(self, max_multiply_adds: int) -> int:
        """The rank to stop at: where the table is whole, or one vector's arithmetic too much."""
        rank = 1
        while not self.is_whole(rank) and (
            self.is_whole(rank + 1) or self.multiply_adds(rank + 1) <= max_multiply_adds
        ):
            rank += 1
        return rank

    def multiply_adds(self, rank: int) -> int:
        """Of one vector."""
        (_, _, d1, r1), (_, _, d2, r2), _ = self.shapes(rank)
        return d1 * r1 * d2 * r2 + self.dim * r2


def _root(value: int, degree: int) -> int:
    """The least whole number >= 1 whose power of `degree` is at least `value`."""
    root: int = max(1, round(value ** (1 / degree)) - 1)
    while root**degree < value:
        root += 1
    return root


def _columns(dim: int) -> Triple:
    """Three ascending factors of `dim` with the least sum: 16 = 2 x 2 x 4, as in the paper."""
    triples = [
        (a, b, dim // (a * b))
        for a in range(1, dim + 1)
        if dim % a == 0
        for b in range(a, dim // a + 1)
        if dim // a % b == 0 and dim // (a * b) >= b
    ]
    return min(triples, key=sum)


class TensorTrainAllocation(ComputedAllocation):
    """Arrays: per table, the three cores, or its rows [tokens, dim] where it is held whole.

    Args:
        tables: The tables.
        ranks: Of each table's cores; 0 for a whole table.
    """

    ranks: Tensor
    fixed = ("ranks",)

    def __init__(self, tables: Sequence[Table], ranks: Sequence[int]) -> None:
        sizes = sizes_of(tables, "tensor train")
        self._trains = [
            Train.of(size, table.embedding_dim) for size, table in zip(sizes, tables, strict=True)
        ]
        shapes: list[tuple[int, ...]] = []
        # Where each table's arrays begin, and the end.
        self._first = [0]
        for train, rank in zip(self._trains, ranks, strict=True):
            shapes += train.shapes(rank) if rank else [(train.tokens, train.dim)]
            self._first.append(len(shapes))
        super().__init__(tables, shapes, {"method": 7})
        self.arguments = {"ranks": list(ranks)}
        self.register_buffer("ranks", torch.tensor(list(ranks), dtype=torch.int64))

    def compute(self, arrays: Sequence[Tensor], tokens: Sequence[Tokens]) -> Tensor:
        """Products of core slices, or rows."""
        out = []
        for number, ids, _ in tokens:
            own = arrays[self._first[number] : self._first[number + 1]]
            if len(own) == 1:
                out.append(own[0].index_select(0, ids))
            else:
                out.append(train_vectors(own, ids))
        return torch.cat(out)

    def reset_weight(self, weight: Tensor, std: float) -> None:
        """Cores by the paper's sampled Gaussian; whole tables N(0, std^2).

        The entries of a core are drawn from a normal distribution without its middle,
        |x| >= 2, so that the products, whose density would peak at 0, come near a Gaussian. The
        paper takes N(0, 1 / 3 tokens), the one nearest to DLRM's uniform start, for what they
        come near; here it is N(0, std^2), where all methods start.
        """
        arrays = self.arrays(weight)
        for number in range(len(self.tables)):
            own = arrays[self._first[number] : self._first[number + 1]]
            if len(own) == 1:
                nn.init.normal_(own[0], std=std)
                continue
            r1, r2 = own[1].shape[1], own[1].shape[3]
            # A sum of r1 r2 products of three entries each.
            entry = (std / (r1 * r2) ** 0.5) ** (1 / 3)
            for core in own:
                core.copy_(_without_middle(core.shape, core.device) * entry)


CUT = 2.0
_TAIL = math.erfc(CUT / 2**0.5) / 2
# E[x^2 | |x| >= CUT] of a standard normal x.
_SQUARE = 1 + CUT * math.exp(-(CUT**2) / 2) / math.sqrt(2 * math.pi) / _TAIL


def _without_middle(shape: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal x given |x| >= CUT, over its standard deviation."""
    # By the inverse of the distribution, in float64 because of its tail; 1 - [0, 1) is never 0.
    share = 1 - torch.rand(tuple(shape), dtype=torch.float64, device=device)
    sign = torch.randint_like(share, 2) * 2 - 1
    drawn: Tensor = sign * torch.special.ndtri(share * _TAIL) / _SQUARE**0.5
    return drawn


def train_vectors(cores: Sequence[Tensor], ids: Tensor) -> Tensor:
    """Rows of the matrix that three cores stand for (Yin et al. 2021).

    W[(i1 n2 + i2) n3 + i3, (j1 d2 + j2) d3 + j3] =
        sum over a, b of G1[i1, 0, j1, a] G2[i2, a, j2, b] G3[i3, b, j3, 0].

    Args:
        cores: [n1, 1, d1, r1], [n2, r1, d2, r2], [n3, r2, d3, 1].
        ids: int64 [n], below n1 n2 n3.

    Returns:
        [n, d1 d2 d3].
    """
    first, second, third = cores
    n2, n3 = len(second), len(third)
    left = first.index_select(0, ids // (n2 * n3)).squeeze(1)
    middle = second.index_select(0, ids // n3 % n2).flatten(2)
    right = third.index_select(0, ids % n3).squeeze(3)
    d1, d2, r2 = first.shape[2], *second.shape[2:]
    product = torch.bmm(left, middle).view(len(ids), d1 * d2, r2)
    return torch.bmm(product, right).flatten(1)
