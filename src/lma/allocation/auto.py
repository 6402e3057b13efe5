"""The default of `lma`: what a budget is best spent on, from the log's statistics alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from lma.allocation.frequency_cutoff import FrequencyCutoff, kept_tokens
from lma.allocation.learned_plan import make_learned_plan
from lma.allocation.lma import Lma
from lma.allocation.planning import Plan
from lma.allocation.tables import PRECISIONS, Budget, Table
from lma.errors import BudgetError
from lma.signatures.config import SignatureConfig
from lma.signatures.stats import LogStats, TableStats

# Rows of few-bit floats: the largest of these whose rows reach nearly every occurrence of a token.
ROW_DIMS = (16, 8, 4, 2, 1)
# Of a dense log also those between, so that fewer bytes are left over.
DENSE_ROW_DIMS = (16, 12, 8, 6, 4, 2, 1)
COVERAGE = 0.99
# Floats of a coded vector, which its codes share equally, and what they are worth beside others:
# narrow codebooks leave a small budget bytes to sign tokens with.
CODED_DIMS = {32: 1.0, 16: 0.98, 8: 0.95}


@dataclasses.dataclass(frozen=True)
class CodedForm:
    """How tokens with few rows are coded, by what their contexts are made of.

    Attributes:
        codes: (num_codes, code_bits) and what they are worth where every token has them: AUC above
            0.5 on validation rows (docs/results/quality.md).
        rows_per_entry: Training rows that every entry of a codebook wants to learn from.
        shrinkage: Of the context vectors, `SignatureConfig.shrinkage`.
        dim: Of the context vectors: twice as many as the directions that matter, whose noise the
            weaker half tells.
        private_share: `Lma.private_share`: whole rows for the smallest tables. Tables of no more
            tokens than a codebook has entries get them in any case.
        private_support, most_private: Tokens seen so often get up to so many floats of their own
            beside their codes.
    """

    codes: Mapping[tuple[int, int], float]
    rows_per_entry: int
    shrinkage: float
    dim: int
    private_share: float
    private_support: int
    most_private: int

    def affordable_codes(self, rows: int) -> list[tuple[int, int]]:
        """Those of `codes` whose entries get rows enough; the coarsest in any case."""
        enough = [c for c in self.codes if self.rows_per_entry << c[1] <= rows]
        return enough or [min(self.codes, key=lambda codes: codes[0] * codes[1])]


# Sampled negatives: codes of positives' company say what is clicked, and many codes say it better.
# Real labels: what company says of a click has to be learned, code by code, from its rows; the
# finest codes fit their training rows only, and frequent tokens know more than their company. With
# sampled negatives they do not: more than one float of their own fits training rows only.
_FINE = {(4, 8): 0.386, (2, 8): 0.378, (1, 8): 0.366, (2, 4): 0.351}
_COARSE = {(1, 8): 0.27, (1, 6): 0.267, (1, 5): 0.266, (1, 4): 0.25}
FORMS = {
    "positive_context": CodedForm(_FINE, 1, 1.0, 32, 0.05, 1, 1),
    "labelled_context": CodedForm(_FINE, 1, 50.0, 32, 0.05, 1, 16),
    "context": CodedForm(_COARSE, 2000, 1.0, 64, 0.0, 5, 8),
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """A method with everything it needs.

    Attributes:
        method: Rows of their own for the frequent tokens, or learned codes.
        signatures: How to make the codes; None for rows.
        tables: The tables, at the dimension that suits the method.
        budget: The budget, with the precision of its weights.
    """

    method: FrequencyCutoff | Lma
    signatures: SignatureConfig | None
    tables: tuple[Table, ...]
    budget: Budget


@dataclasses.dataclass(frozen=True)
class Auto:
    """Own floats in few bits where tokens have rows enough to learn them from, else learned codes.

    A token's own floats take no prior knowledge and need rows to be learned from; codes know from
    the log what a token is like. Which is better turns on the rows per token, and on whether tokens
    alike are clicked alike: `lma.nn.for_log.choose_for_log` asks the labels of training rows.

    Attributes:
        dense_support: Rows per token, averaged over all tokens, from which on tokens get floats of
            their own.
        similarity: Of learned codes; None: contexts of positive rows, or what the caller knows to
            fit the log better.
        shrinkage: Rows of an average token mixed into every context vector; None: that of the
            similarity's form.
        judged: Whether codes made without labels have to tell the clicks of held-out training rows
            nearly as well as 8-bit rows of the frequent tokens do, or give way to them.
        permuted: A control: codes are dealt out at random among each table's tokens, everything
            else stays as it is; what they then lose, similarity had given.
        seed: Seed of the hash functions.
    """

    name: ClassVar[str] = "lma"
    dense_support: float = 40.0
    similarity: str | None = None
    shrinkage: float | None = None
    judged: bool = True
    permuted: bool = False
    seed: int = 0

    def choose(self, tables: Sequence[Table], budget: Budget, stats: LogStats) -> Choice:
        """The method, its signatures and dimension, and the precision of the weights.

        Args:
            tables: The tables.
            budget: Serving bytes; its precision is chosen here.
            stats: Of the log's training rows.

        Raises:
            BudgetError: The budget holds nothing.
        """
        of_tables = [stats.tables[table.name] for table in tables]
        rows = sum(int(s.supports @ s.counts) for s in of_tables)
        ranked = all(table.num_embeddings is not None for table in tables)
        if ranked and rows >= self.dense_support * max(1, stats.num_tokens):
            return self._rows(tables, budget, of_tables)
        try:
            return self._codes(tables, budget, stats)
        except BudgetError:
            if not ranked:
                raise
        return self._rows(tables, budget, of_tables)

    def rows(
        self,
        tables: Sequence[Table],
        budget: Budget,
        precision: str,
        dims: Sequence[int] = ROW_DIMS,
    ) -> list[Choice]:
        """Rows of 8-bit or 4-bit floats, of every dimension that the budget holds, widest first."""
        budget = dataclasses.replace(budget, precision=precision)
        # Two 4-bit floats make a byte.
        dims = [dim for dim in dims if dim * PRECISIONS[precision] % 8 == 0]
        return [
            Choice(
                FrequencyCutoff(dim),
                None,
                tuple(dataclasses.replace(table, embedding_dim=dim) for table in tables),
                budget,
            )
            for dim in dims
            if _places(tables, budget, dim) >= 0
        ]

    def _rows(self, tables: Sequence[Table], budget: Budget, stats: Sequence[TableStats]) -> Choice:
        # Where every token has the widest row, finer floats are all that is left to buy.
        finest = self.rows(tables, budget, "int8")
        widest = finest and finest[0].tables[0].embedding_dim == ROW_DIMS[0]
        if widest and _reached(finest[0], stats) == 1:
            return finest[0]
        choices = self.rows(tables, budget, "int4", DENSE_ROW_DIMS)
        if not choices:
            raise BudgetError(
                f"lma: {budget.bytes} bytes hold no row for each of the {len(tables)} tables, "
                f"which take {_least_bytes(tables, budget)}; give a larger budget"
            )
        for choice in choices:
            if _reached(choice, stats) >= COVERAGE:
                return choice
        return choices[-1]

    def _codes(self, tables: Sequence[Table], budget: Budget, stats: LogStats) -> Choice:
        budget = dataclasses.replace(budget, precision="int8")
        hashed = [table.name for table in tables if table.num_embeddings is None]
        similarity = self.similarity or "positive_context"
        if similarity not in FORMS:
            raise ValueError(f"lma: similarity must be one of {list(FORMS)}, found {similarity!r}")
        form = FORMS[similarity]
        found: list[tuple[float, Choice]] = []
        error = BudgetError("lma: no codes were tried")
        for codes, dim in itertools.product(form.affordable_codes(usual_rows(stats)), CODED_DIMS):
            method, signatures = self._coded(codes, dim, similarity, form)
            wide = tuple(dataclasses.replace(table, embedding_dim=dim) for table in tables)
            try:
                plan = make_learned_plan(budget, stats, wide, method, signatures, hashed=hashed)
            except BudgetError as none:
                error = none
                continue
            choice = Choice(method, signatures, wide, budget)
            worth = form.codes[codes] * CODED_DIMS[dim]
            found.append((worth * plan_coverage(plan, stats, dim), choice))
        if not found:
            raise error
        return max(found, key=lambda pair: pair[0])[1]

    def _coded(
        self, codes: tuple[int, int], dim: int, similarity: str, form: CodedForm
    ) -> tuple[Lma, SignatureConfig]:
        num_codes, code_bits = codes
        method = Lma(
            block_size=dim // num_codes,
            signature_share=0.999,
            private_share=form.private_share,
            private_support=form.private_support,
            most_private=form.most_private,
            seed=self.seed,
        )
        signatures = SignatureConfig(
            similarity=similarity,
            kind="learned",
            num_codes=num_codes,
            code_bits=code_bits,
            dim=form.dim,
            passes=1,
            shrinkage=form.shrinkage if self.shrinkage is None else self.shrinkage,
            seed=self.seed,
        )
        return method, signatures


def _places(tables: Sequence[Table], budget: Budget, dim: int) -> int:
    """Tokens that rows of `dim` floats reach, beside one row per table for all others."""
    return budget.floats(8 * (5 + len(tables)), dim) // dim - len(tables)


def _reached(rows: Choice, stats: Sequence[TableStats]) -> float:
    """Share of all occurrences that belong to tokens with rows of their own."""
    places = _places(rows.tables, rows.budget, rows.tables[0].embedding_dim)
    return coverage(stats, kept_tokens(stats, places))


def _least_bytes(tables: Sequence[Table], budget: Budget) -> int:
    """The smallest budget that holds a row of the narrowest kind for each table."""
    size = budget.bytes
    while not Auto().rows(tables, dataclasses.replace(budget, bytes=size), "int4"):
        size += 1
    return size


def usual_rows(stats: LogStats) -> int:
    """Rows in which a table has a token: the median over the tables."""
    return int(np.median([int(s.supports @ s.counts) for s in stats.tables.values()]))


def coverage(stats: Sequence[TableStats], kept: Sequence[int]) -> float:
    """Share of all occurrences that belong to the `kept` most frequent tokens of each table."""
    total = covered = 0
    for table, count in zip(stats, kept, strict=True):
        taken = (table.counts.cumsum() - table.counts).clip(max=count)
        # Of each support value: how many of its tokens are among the first `count`.
        covered += int(table.supports @ (count - taken).clip(max=table.counts))
        total += int(table.supports @ table.counts)
    return covered / max(1, total)


def plan_coverage(plan: Plan, stats: LogStats, dim: int) -> float:
    """Share of all occurrences that belong to tokens with codes or rows of their own."""
    kept = [t.num_private if t.private_dim == dim else t.num_signed for t in plan.tables]
    return coverage([stats.tables[t.table] for t in plan.tables], kept)


__all__ = ["Auto", "Choice", "coverage"]
