"""Who gets what of a budget: private floats, signatures, shared blocks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lma.allocation.speed_rules import GradientMode, fast_block_size, gradient_mode
from lma.allocation.tables import Budget, Table
from lma.errors import BudgetError
from lma.signatures.budget import signature_bytes
from lma.signatures.config import SignatureConfig
from lma.signatures.stats import LogStats

if TYPE_CHECKING:
    from lma.allocation.lma import Lma

HEADER_BYTES = 8 * 11  # int64 settings of an LMA memory's header
TABLE_BYTES = 4 * 9  # int32 columns per table of an LMA memory's plan
CODE_PADDING_BYTES = 2


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """One table's share.

    Attributes:
        table: Its name.
        num_signed: Most frequent tokens that get a signature.
        num_private: Most frequent tokens that get `private_dim` floats of their own; with
            `private_dim` the whole dimension, the others of the table share one more row.
        private_dim: Floats of the private part of every vector of the table; 0: no such part.
    """

    table: str
    num_signed: int = 0
    num_private: int = 0
    private_dim: int = 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """A budget, spent.

    Attributes:
        tables: One share per table.
        num_blocks: Shared blocks that random codes and plain hashes reach.
        hashed_blocks: How many of those are set aside for unsigned tokens; 0: none, they hash
            into all of them (as published).
        block_size: Floats per block.
        power: Codes that must agree for two tokens to share a chunk.
        num_codes, code_bits: Of every signature.
        gradients: The fastest form of the memory's gradient, of `plan`: see `gradient_mode`.
    """

    tables: tuple[TablePlan, ...]
    num_blocks: int
    hashed_blocks: int
    block_size: int
    power: int
    num_codes: int
    code_bits: int
    gradients: GradientMode = dataclasses.field(default="dense", compare=False)

    @property
    def num_signed(self) -> dict[str, int]:
        """Signed tokens per table: what builders take."""
        return {table.table: table.num_signed for table in self.tables}

    def table(self, name: str) -> TablePlan:
        """The share of one table."""
        for table in self.tables:
            if table.table == name:
                return table
        raise KeyError(f"the plan has no table {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """What `to_dict` gave."""
        tables = tuple(TablePlan(**table) for table in values["tables"])
        return cls(**{**values, "tables": tables})


def plan(
    budget: int | str | Budget,
    stats: LogStats,
    *,
    embedding_dim: int = 16,
    method: Lma | None = None,
    signatures: SignatureConfig | None = None,
    batch_size: int = 2048,
) -> Plan:
    """Spend a budget on a log.

    With random codes (learned ones: `lma.allocation.learned_plan`):

    1. Tables so small that private rows for all their tokens fit `method.private_share` of the
       budget, smallest first, get them: nothing is gained by compressing a handful of rows.
    2. Signatures go to the most frequent tokens of the other tables, one support threshold for
       all, down to `signatures.support_to_sign`, as long as they stay within
       `method.signature_share` of the budget (no limit where weights alone are counted).
    3. The rest becomes shared blocks.

    Where only a budget is given, speed chooses the size of blocks of random codes
    (`fast_block_size`) and says how to train them: `plan.gradients` (`gradient_mode`).

    Args:
        budget: Bytes (`64_000_000`, "64MB"), a compression ("16x" of all seen tokens' rows of 16
            floats), or a `Budget`.
        stats: Of the log's training rows: `builder.stats()` or `LogStats.from_dataset`.
        embedding_dim: Dimension of every table.
        method: Settings of the allocation; `default_method` of the budget unless given.
        signatures: Settings of the signatures; `SignatureConfig()` unless given.
        batch_size: Rows of a training step, of one token per table.

    Raises:
        BudgetError: If the budget holds not even one block.
    """
    tables = [Table(name, None, embedding_dim) for name in stats.tables]
    resolved = Budget.of(budget, None, stats.num_tokens)
    if resolved is None:
        raise ValueError("plan needs a budget")
    signatures = signatures or SignatureConfig()
    method = method or default_method(resolved, tables, learned=signatures.kind == "learned")
    made = make_plan(resolved, stats, tables, method, signatures)
    # The budget's floats, most of which are the memory's; signatures would move no crossover.
    floats = resolved.floats(fixed_bytes(len(tables)), made.block_size)
    read = batch_size * embedding_dim * len(tables)
    # Rounded weights have dense gradients only.
    rounded = resolved.precision != "float32"
    mode: GradientMode = "dense" if rounded else gradient_mode(floats, made.block_size, read)
    return dataclasses.replace(made, gradients=mode)


def default_method(budget: Budget, tables: Sequence[Table], *, learned: bool) -> Lma:
    """`Lma` with the block size that suits a budget and the tables' dimensions.

    Every learned code wants a chunk of its own beside private floats, whose number is not known
    yet: their blocks are single floats.
    """
    from lma.allocation.lma import Lma

    if learned:
        return Lma()
    floats = budget.floats(fixed_bytes(len(tables)))
    return Lma(block_size=fast_block_size(floats, [table.embedding_dim for table in tables]))


def make_plan(
    budget: Budget,
    stats: LogStats,
    tables: Sequence[Table],
    method: Lma,
    signatures: SignatureConfig,
    available: Mapping[str, int] | None = None,
    hashed: Collection[str] = (),
) -> Plan:
    """`plan` for tables of given dimensions.

    Args:
        budget, stats, method, signatures: As `plan`.
        tables: The tables, in order.
        available: Most tokens to sign, per table; None: no bound.
        hashed: Tables whose ids are hashes, not ranks: their tokens are found by fingerprints,
            which are paid for, and none can be private, since none is known to be frequent.
    """
    if signatures.kind == "learned":
        from lma.allocation.learned_plan import make_learned_plan

        return make_learned_plan(budget, stats, tables, method, signatures, available, hashed)
    code_bytes = signature_bytes(signatures, bool(hashed))
    left = budget.weight_bytes(fixed_bytes(len(tables)))
    float_bytes = budget.float_bytes(method.block_size)
    ranked = [t for t in tables if t.name not in hashed]
    private = smallest_tables(ranked, stats, int(left * method.private_share), float_bytes)
    private_bytes = sum(
        private_row_bytes(t, stats, float_bytes) for t in tables if t.name in private
    )
    shared = [t for t in tables if t.name not in private]
    shared_stats = LogStats.of([stats.tables[t.name] for t in shared])
    threshold = signatures.support_to_sign(stats.num_rows)
    if budget.counts == "serving" and shared:
        affordable = int((left - private_bytes) * method.signature_share) // code_bytes
        threshold = max(threshold, shared_stats.threshold(max(0, affordable)))
    signed = {t.name: stats.tables[t.name].tokens_with(threshold) for t in shared}
    if available is not None:
        signed = {name: min(count, available[name]) for name, count in signed.items()}
    if budget.counts == "serving":
        left -= sum(signed.values()) * code_bytes
    num_blocks = int((left - private_bytes) // (method.block_size * float_bytes))
    if shared and num_blocks < 1 + bool(method.hashed_share):
        raise BudgetError(
            f"lma: {budget.bytes} bytes hold no block of {method.block_size} floats beside "
            f"{private_bytes} private bytes and signatures for {sum(signed.values())} tokens"
        )
    hashed_blocks = 0
    if method.hashed_share and shared:
        hashed_blocks = min(max(1, round(num_blocks * method.hashed_share)), num_blocks - 1)
    return Plan(
        tuple(
            TablePlan(t.name, 0, stats.tables[t.name].num_tokens, t.embedding_dim)
            if t.name in private
            else TablePlan(t.name, signed[t.name])
            for t in tables
        ),
        num_blocks if shared else 0,
        hashed_blocks,
        method.block_size,
        method.power,
        signatures.num_codes,
        signatures.code_bits,
    )


def fixed_bytes(num_tables: int) -> int:
    """Bytes of an LMA memory's settings, whatever it holds."""
    return HEADER_BYTES + TABLE_BYTES * num_tables + CODE_PADDING_BYTES


def private_row_bytes(table: Table, stats: LogStats, float_bytes: float) -> int:
    """Bytes of a row for every token of a table, and one more for unseen tokens."""
    floats = (stats.tables[table.name].num_tokens + 1) * table.embedding_dim
    return math.ceil(floats * float_bytes)


def smallest_tables(
    tables: Sequence[Table], stats: LogStats, limit: int, float_bytes: float
) -> set[str]:
    """Smallest tables whose rows, one more for unseen tokens included, fit `limit` bytes."""
    chosen: set[str] = set()
    for table in sorted(tables, key=lambda t: stats.tables[t.name].num_tokens):
        limit -= private_row_bytes(table, stats, float_bytes)
        if limit < 0:
            break
        chosen.add(table.name)
    return chosen
