"""LMA: tokens share places in proportion to their similarity (SCMA, Desai et al. 2021)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group
from lma.allocation.lma_layout import PLAN_COLUMNS, lay_out
from lma.allocation.planning import Plan, make_plan
from lma.allocation.tables import Budget, Table
from lma.errors import BudgetError, StateMismatchError
from lma.hashing import combine, stream_seed, stream_seeds
from lma.kernels.layout import Column
from lma.kernels.reference.addresses import private_starts
from lma.kernels.rule import Rule
from lma.signatures.config import SignatureConfig
from lma.signatures.stats import LogStats, TableStats
from lma.signatures.table import SignatureTable

STREAM_DRAW = 1 << 22  # stream of the hash family that deals codes out to chunks


@dataclasses.dataclass(frozen=True)
class Lma:
    """Settings of the allocation; how signatures are made is `SignatureConfig`'s.

    Attributes:
        block_size: Floats per block; 1 is the published form.
        power: Codes that must agree for two tokens to share a chunk: similarity psi becomes
            psi^power, fewer and surer matches.
        signature_share: At most this share of a serving budget goes to signatures.
        private_share: At most this share goes to private rows of the smallest tables; 0 is the
            published form.
        hashed_share: Share of the blocks set aside for tokens without a signature; 0 lets them
            hash into all blocks, the published form.
        seed: Seed of the hash functions.
        private_support: Learned codes only: tokens seen less often get no floats of their own, and
            neither they nor tokens without a signature more blocks than `hashed_share` says; what
            a budget then has left stays unspent.
        most_private: Learned codes only: floats of a private part at most, never more than half a
            vector; None: half.
    """

    name: ClassVar[str] = "lma"
    block_size: int = 1
    power: int = 2
    signature_share: float = 0.5
    private_share: float = 0.25
    hashed_share: float = 0.0
    seed: int = 0
    private_support: int = 1
    most_private: int | None = None

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f"Lma.block_size must be at least 1, found {self.block_size}")
        if self.power < 1:
            raise ValueError(f"Lma.power must be at least 1, found {self.power}")
        if self.private_support < 1:
            raise ValueError(f"Lma.private_support must be >= 1, found {self.private_support}")
        if self.most_private is not None and self.most_private < 0:
            raise ValueError(f"Lma.most_private must be >= 0, found {self.most_private}")
        for name in ("signature_share", "private_share", "hashed_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Lma.{name} must be in [0, 1), found {getattr(self, name)}")

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> LmaAllocation:
        """Plan the budget from `stats` and lay out; signatures beyond the plan are cut off.

        Without stats a token counts by its rank in its table alone, and tables without
        signatures are hashed.
        """
        if budget is None:
            raise ValueError("lma needs a budget or a compression")
        if signatures is None:
            raise ValueError(
                "lma needs signatures: fit them with lma.fit_signatures(log), or use "
                "lma.allocation.Hashed for random sharing"
            )
        plan = self.plan_for(tables, budget, signatures, stats)
        return LmaAllocation(tables, plan, signatures.truncate(plan.num_signed), self.seed)

    def plan_for(
        self,
        tables: Sequence[Table],
        budget: Budget,
        signatures: SignatureTable,
        stats: LogStats | None,
    ) -> Plan:
        """The plan that the signatures at hand can serve."""
        sections = signatures.sections
        codes = {(s.kind, s.num_codes, s.code_bits) for s in sections} or {("random", 1, 1)}
        if len(codes) > 1:
            raise ValueError(
                f"lma: tables' signatures differ in (kind, num_codes, code_bits): {codes}; lay "
                "them out with a Plan of your own"
            )
        ((kind, num_codes, code_bits),) = codes
        config = SignatureConfig(
            similarity="labelled_context",
            kind=kind,
            num_codes=num_codes,
            code_bits=code_bits,
            min_support=1,
            dim=max(num_codes, 32),
        )
        signed = {s.table: s.num_signed for s in sections}
        if stats is None:
            stats = LogStats.of(
                # Only their order is known: the most frequent of each table come first.
                [
                    TableStats.of_supports(t.name, np.arange(signed.get(t.name, 0), 0, -1))
                    for t in tables
                ]
            )
            method = dataclasses.replace(self, private_share=0.0)
        else:
            method = self
        missing = [t.name for t in tables if t.name not in stats.tables]
        if missing:
            raise ValueError(f"lma: the stats have no tables {missing}")
        usable = {
            t.name: min(signed.get(t.name, 0), stats.tables[t.name].num_tokens) for t in tables
        }
        hashed = [s for s in sections if s.index == "fingerprint"]
        extra = sum((s.num_slots - s.num_signed) * s.row_bytes for s in hashed)
        if hashed and budget.counts == "serving":
            extra += signatures.index_bytes
            if budget.bytes <= extra:
                raise BudgetError(
                    f"lma: the index of the signatures alone takes {extra} of {budget.bytes} bytes"
                )
            budget = dataclasses.replace(budget, bytes=budget.bytes - extra)
        names = [s.table for s in hashed]
        return make_plan(budget, stats, tables, method, config, usable, names)


class LmaAllocation(Allocation):
    """The memory is [shared blocks | learned codebooks | private rows], in floats.

    Buffers: `header` (settings), `plan_rows` int32 [tables, 9], and the signatures' tensors.

    Args:
        tables: The tables.
        plan: Who gets what.
        signatures: Of the tokens that the plan signs; tables it leaves out are hashed.
        seed: Seed of the hash functions.
    """

    plan_rows: Tensor
    layout: Tensor
    seeds: Tensor
    draws: Tensor
    codes: Tensor
    fingerprints: Tensor
    overflow_keys: Tensor

    def __init__(
        self, tables: Sequence[Table], plan: Plan, signatures: SignatureTable, seed: int
    ) -> None:
        layout, unit = lay_out(tables, plan, signatures)
        end = layout.end
        super().__init__(
            tables,
            end // unit,
            unit,
            {
                "seed": seed,
                "method": 6,
                "chunk": plan.block_size,
                "power": plan.power,
                "signature_seed": signatures.seed,
                "shared_blocks": plan.num_blocks,
                "hashed_blocks": plan.hashed_blocks,
            },
        )
        self.plan = plan
        self.seed = seed
        self.sections = signatures.sections
        self.chunk = plan.block_size
        self._lead = int(bool((layout.rows[:, Column.PRIVATE_DIM] > 0).any()))
        chunks = max((-(-t.embedding_dim // plan.block_size) for t in tables), default=0)
        self.register_buffer("plan_rows", layout.plan_rows)
        self._derived("layout", layout.rows)
        self._derived("seeds", torch.from_numpy(stream_seeds(seed, chunks).view("int64")))
        draws = draw_codes(chunks, plan.num_codes, plan.power, seed)
        self.register_buffer("draws", torch.from_numpy(draws), persistent=False)
        for name in ("codes", "fingerprints", "overflow_keys"):
            self.register_buffer(name, getattr(signatures, name))

    @property
    def signatures(self) -> SignatureTable:
        """The signatures that the memory holds."""
        return SignatureTable(
            self.sections,
            self.codes,
            self.fingerprints,
            self.overflow_keys,
            seed=int(self.header[self._header_names.index("signature_seed")]),
        )

    @property
    def signature_names(self) -> tuple[str, ...]:
        """The codes; fingerprints and overflow keys are index."""
        return ("codes",)

    def group(self, number: int) -> Group:
        """(dimension, private part's dimension)."""
        return (
            self.tables[number].embedding_dim,
            int(self.layout[number, Column.PRIVATE_DIM]),
        )

    def rule(self) -> Rule:
        """The layout and the signatures."""
        return Rule(
            self.layout,
            self.seeds,
            self.draws,
            self.codes,
            self.fingerprints,
            self.overflow_keys,
            self.chunk,
            self.chunk,
            self._lead,
        )

    def starts(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """First floats of the semantic part's chunks: int64 [..., chunks]."""
        return self._chunk_starts(self.rule(), ids, numbers, group)

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Memory blocks of tokens of a group that is all semantic, in whole blocks."""
        if group[1] or self.block_size != self.chunk or group[0] % self.chunk:
            raise ValueError("blocks: this group has private or partial blocks; use locations")
        return self.starts(ids, numbers, group) // self.chunk

    def locations(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Places of every float of every vector."""
        dim, private = group
        parts = []
        if private:
            row = self.layout[numbers]
            inside = torch.arange(private, device=ids.device)
            parts.append(private_starts(ids, row).unsqueeze(-1) + inside)
        if dim > private:
            inside = torch.arange(self.chunk, device=ids.device)
            starts = self.starts(ids, numbers, group)
            parts.append((starts.unsqueeze(-1) + inside).flatten(-2)[..., : dim - private])
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    @property
    def whole_rows(self) -> bool:
        """Never: kept simple, chunks are pooled by our own kernels."""
        return False

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):  # type: ignore[no-untyped-def]
        saved = state_dict.get(prefix + "plan_rows")
        if saved is not None and not torch.equal(saved.cpu(), self.plan_rows.cpu()):
            where = "another number of tables"
            if saved.shape == self.plan_rows.shape:
                table, column = (saved.cpu() != self.plan_rows.cpu()).nonzero()[0].tolist()
                where = (
                    f"{PLAN_COLUMNS[column]} of table {self.tables[table].name!r} was "
                    f"{int(saved[table, column])}, is {int(self.plan_rows[table, column])}"
                )
            raise StateMismatchError(
                f"{prefix}plan_rows: the saved weights belong to another plan: {where}"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def settle(
    tables: Sequence[Table], plan: Plan, signatures: SignatureTable, budget: Budget, seed: int
) -> LmaAllocation:
    """The allocation of a plan whose signatures turned out larger or smaller than planned.

    The size of a fingerprint index is known only once it is built; the shared blocks give or take
    the difference, so that the budget is kept to the byte.
    """
    allocation = LmaAllocation(tables, plan, signatures, seed)
    float_bytes = budget.float_bytes(allocation.block_size)
    count = allocation.num_bytes(float_bytes)
    spent = count.serving if budget.counts == "serving" else count.weights
    left = budget.bytes - budget.slack_bytes - spent
    num_blocks = plan.num_blocks + int(left // (plan.block_size * float_bytes))
    if num_blocks <= plan.hashed_blocks:
        raise BudgetError(
            f"lma: signatures and index leave no block of {plan.block_size} floats in "
            f"{budget.bytes} bytes"
        )
    settled = dataclasses.replace(plan, num_blocks=num_blocks)
    return LmaAllocation(tables, settled, signatures, seed)


def draw_codes(
    chunks: int, num_codes: int, power: int, seed: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Which `power` distinct codes each chunk draws: uint8 [chunks, power].

    Each chunk takes the codes used least so far, ties broken at random, so codes are used equally
    often (counts differ by 1, or a little more where few hands are left to choose from); hands
    repeat only when none is left.
    """
    power = min(power, num_codes)
    hands = np.zeros((chunks, power), dtype=np.uint8)
    uses = np.zeros(num_codes, np.int64)
    dealt: set[tuple[int, ...]] = set()
    possible = math.comb(num_codes, power)
    for chunk in range(chunks):
        if len(dealt) == possible:
            dealt.clear()
        ties = combine(stream_seed(seed, STREAM_DRAW + chunk), np.arange(num_codes))
        order = np.lexsort((ties, uses)).tolist()
        hand = next(
            hand
            for choice in itertools.combinations(order, power)
            if (hand := tuple(sorted(choice))) not in dealt
        )
        dealt.add(hand)
        hands[chunk] = hand
        uses[list(hand)] += 1
    return hands
