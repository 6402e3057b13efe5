"""CAFE: own rows for tokens of large gradients, hashed rows for the rest (Zhang et al. 2024)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group
from lma.allocation.cafe_migration import Migration
from lma.allocation.hashing_trick import HashingTrickAllocation, share_rows
from lma.allocation.tables import Budget, Table, shared_dim, sizes_of
from lma.errors import BudgetError, UnsupportedError
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable

OWNER_BYTES = 4  # of an own row's entry in the index
NOBODY = (1 << 31) - 1  # above every token, so that rows without an owner come last
# The authors keep tables whole up to 2000 tokens times the share of rows that the budget holds.
WHOLE_TOKENS = 2000
SETTINGS = 13  # int64 numbers in the two headers


@dataclasses.dataclass(frozen=True)
class Cafe:
    """Hot tokens own a row each; the others of a table share its hashed rows.

    A token becomes hot when the norms of its vector's gradients, summed by a HotSketch, reach a
    threshold; its row begins with what it read before. It is cold again once decay has brought
    the sum below the threshold.

    Attributes:
        hot_share: Share of the budget for own rows, small tables aside, which stay whole.
        threshold: In mean gradient norms of a lookup of the token's table.
        decay: What sums are multiplied by, whenever ten thresholds per own row have come in.
        buckets_per_row: Buckets of the sketch for each own row; only training takes their bytes.
        seed: Of the hash functions.
    """

    name: ClassVar[str] = "cafe"
    hot_share: float = 0.2
    threshold: float = 100.0
    decay: float = 0.98
    buckets_per_row: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for field, valid, expected in (
            ("hot_share", 0 < self.hot_share < 1, "in (0, 1)"),
            ("threshold", self.threshold > 0, "above 0"),
            ("decay", 0 < self.decay <= 1, "in (0, 1]"),
            ("buckets_per_row", self.buckets_per_row >= 1, "at least 1"),
        ):
            if not valid:
                raise ValueError(f"Cafe.{field} must be {expected}, found {getattr(self, field)}")

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> CafeAllocation:
        """Small tables whole; the rest to own rows and, in proportion to tokens, to hashed ones."""
        if budget is None:
            raise ValueError("cafe needs a budget or a compression")
        dim, sizes = shared_dim(tables, "cafe"), sizes_of(tables, "cafe")
        tokens = sum(sizes)
        if tokens >= NOBODY:
            raise UnsupportedError(f"cafe takes less than 2^31 - 1 tokens in all, found {tokens}")
        row = math.ceil(dim * budget.float_bytes(dim))
        left = budget.weight_bytes(8 * (SETTINGS + len(tables)))
        if left < row * len(tables):
            raise BudgetError(
                f"cafe: {budget.bytes} bytes hold {max(0, left) // row} rows of {dim} floats, "
                f"{len(tables)} tables need one each"
            )
        rows = _whole_tables(sizes, left // row)
        left -= row * sum(rows)
        shared = [number for number, count in enumerate(rows) if not count]
        tokens = sum(sizes[number] for number in shared)
        own = 0
        if left < row * tokens:
            own_row = row + (OWNER_BYTES if budget.counts == "serving" else 0)
            own = min(int(left * self.hot_share), left - row * len(shared)) // own_row
            left -= own * own_row
        hashed = share_rows([sizes[number] for number in shared], left // row)
        for number, count in zip(shared, hashed, strict=True):
            rows[number] = count
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del settings["hot_share"]
        return CafeAllocation(tables, own, rows, **settings)


def _whole_tables(sizes: Sequence[int], total: int) -> list[int]:
    """Rows of the tables that stay whole, 0 for the others.

    Small tables, smallest first, in at most half of what one row for every table leaves.
    """
    rows = [0] * len(sizes)
    largest, room = WHOLE_TOKENS * total / max(1, sum(sizes)), (total - len(sizes)) // 2
    for number in sorted(range(len(sizes)), key=lambda number: sizes[number]):
        if sizes[number] <= largest and sum(rows) + sizes[number] <= room:
            rows[number] = sizes[number]
    return rows


class CafeAllocation(Allocation):
    """Row r < own belongs to token `owners[r]`; behind them come the rows of the hashing trick.

    Tokens are numbered through all tables. Owners ascend, so that the row of a token is found by
    bisection and the index holds nothing else.
    """

    owners: Tensor
    bases: Tensor
    whole: Tensor

    def __init__(
        self, tables: Sequence[Table], own: int, rows: Sequence[int], seed: int, **training: Any
    ) -> None:
        dim, sizes = shared_dim(tables, "cafe"), sizes_of(tables, "cafe")
        settings = {"seed": seed, "method": 12, "own": own}
        super().__init__(tables, own + sum(rows), dim, settings)
        self.arguments = {"own": own, "rows": list(rows), "seed": seed, **training}
        self.own = own
        self.shared_rows = HashingTrickAllocation(tables, rows, seed)
        self.register_buffer("owners", torch.full((own,), NOBODY, dtype=torch.int32))
        self._derived("bases", [sum(sizes[:i]) for i in range(len(sizes))])
        whole = [int(count == size) for count, size in zip(rows, sizes, strict=True)]
        self._derived("whole", whole)
        # Where lookups leave (tokens, tables, gradient norms), while a `Migration` is at work.
        self.observed: list[tuple[Tensor, Tensor, Tensor]] | None = None

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """The own row of a hot token, the hashed row of another."""
        row = self.own + self.shared_rows.blocks(ids, numbers, group).squeeze(-1)
        if self.own:
            token = (self.bases[numbers] + ids).int()
            found = torch.searchsorted(self.owners, token).clamp_(max=self.own - 1)
            row = torch.where(self.owners[found] == token, found, row)
        return row.unsqueeze(-1)

    def vectors(
        self, weight: Tensor, ids: Tensor, numbers: Tensor, group: Group, sparse: bool
    ) -> Tensor:
        """The rows; training learns the norms of their gradients, lookup by lookup."""
        found = super().vectors(weight, ids, numbers, group, sparse)
        observed = self.observed
        if observed is not None and found.requires_grad:
            tables = numbers.expand(ids.shape)

            def note(gradient: Tensor) -> None:
                norms = gradient.float().norm(dim=-1)
                observed.append((self.bases[tables] + ids, tables, norms))

            found.register_hook(note)  # type: ignore[no-untyped-call]
        return found

    @property
    def whole_rows(self) -> bool:
        """Torch's own pooling of rows would hide the gradients of their vectors."""
        return False

    def hot_tokens(self) -> Tensor:
        """Who owns a row: int64, ascending."""
        return self.owners[self.owners != NOBODY].long()

    def settle(self, owners: Tensor, blocks: Sequence[Tensor]) -> None:
        """Give the own rows to `owners`, int64 ascending; all take along what they read now."""
        numbers = torch.searchsorted(self.bases, owners, right=True) - 1
        rows = self.blocks(owners - self.bases[numbers], numbers, self.group(0)).squeeze(-1)
        for block in blocks:
            block[: len(rows)] = block[rows]
        self.owners.fill_(NOBODY)
        self.owners[: len(rows)] = owners.int()

    def adaptation(self) -> Migration:
        """Who owns a row follows the gradients."""
        return Migration(self)
