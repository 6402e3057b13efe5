"""All passes over a log that make a table, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lma.signatures.budget import signed_within, support_threshold
from lma.signatures.config import SignatureConfig
from lma.signatures.context import ContextCodeBuilder
from lma.signatures.minhash import MinHashBuilder
from lma.signatures.row_batch import RowBatch
from lma.signatures.stats import LogStats
from lma.signatures.support import SupportCounter
from lma.signatures.table import SignatureTable
from lma.signatures.tokens import check_counts

WHO = "fit_signatures"
_log = logging.getLogger(__name__)


class FitPasses:
    """A builder, and before it a pass that counts tokens whose ids are hashes.

    Random codes: one pass, or two where ids are hashes. Learned codes: `1 + config.passes`, and
    one more where `max_tokens` bounds the memory for counting.

    The builder counts its tokens exactly, so who is signed is exact too, if the tokens that it was
    given hold all that reach the support threshold. Counted in bounded memory they do, if the
    threshold is above the counter's error; else `finish` says in the provenance by how many rows
    a token may have been missed.

    Args:
        sizes: `num_embeddings` of every feature's table; None where ids are hashes.
        config: Which signatures.
        num_signed: Tokens to sign per table.
        budget_bytes: Bytes for codes and index instead: one support threshold for all tables.
        max_tokens: Most tokens to hold of a table whose ids are hashes, while counting; None: all.
    """

    def __init__(
        self,
        sizes: Mapping[str, int | None],
        config: SignatureConfig,
        *,
        num_signed: Mapping[str, int] | None = None,
        budget_bytes: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        if num_signed is not None and budget_bytes is not None:
            raise ValueError(f"{WHO}: give either num_signed or budget_bytes, not both")
        if budget_bytes is not None and budget_bytes < 1:
            raise ValueError(f"{WHO}: budget_bytes must be positive, found {budget_bytes}")
        check_counts(num_signed or {}, sizes, WHO)
        self.sizes, self.config = dict(sizes), config
        self.num_signed = None if num_signed is None else dict(num_signed)
        self.budget_bytes, self.max_tokens = budget_bytes, max_tokens
        hashed = [name for name, size in sizes.items() if size is None]
        counted = hashed if config.kind == "random" or max_tokens is not None else []
        self._counters = {name: SupportCounter(name, max_tokens) for name in counted}
        self._missed: dict[str, int] = {}
        self._builder: MinHashBuilder | ContextCodeBuilder | None = None
        self._passes = bool(counted) + (1 if config.kind == "random" else 1 + config.passes)
        self.passes_done = 0
        self.rows_done = 0
        self.batches_done = 0
        if not counted:
            self._builder = self._make({})

    @property
    def num_passes(self) -> int:
        """Passes over the log in all."""
        return self._passes

    @property
    def num_tokens(self) -> int:
        """Tokens seen; of a bounded count, those that it holds."""
        if isinstance(self._builder, ContextCodeBuilder):
            return self._builder.num_tokens
        if self._builder is not None:
            return sum(tokens.seen for tokens in self._builder.tokens.values())
        return sum(counter.num_tokens for counter in self._counters.values())

    @property
    def finds_directions(self) -> bool:
        """Whether closing this pass iterates over the rows that learned codes keep in memory."""
        return isinstance(self._builder, ContextCodeBuilder) and self._builder.passes_done == 0

    @property
    def builder(self) -> MinHashBuilder | ContextCodeBuilder:
        """The builder, once tokens are counted."""
        if self._builder is None:
            raise ValueError(f"{WHO}: tokens are still being counted")
        return self._builder

    def update(
        self,
        values: npt.ArrayLike,
        offsets: npt.ArrayLike | None,
        labels: npt.ArrayLike | None,
        total_rows: int,
    ) -> None:
        """Take in the next batch of the pass; as the builders' `update`."""
        if self._builder is None:
            rows = RowBatch.of(values, offsets, len(self.sizes), WHO)
            for name, counter in self._counters.items():
                counter.update(rows.values[rows.feature(list(self.sizes).index(name))])
        else:
            self._builder.update(
                values, offsets, labels, first_row=self.rows_done, total_rows=total_rows
            )
        bags = np.shape(values)[0] if offsets is None else np.shape(offsets)[0] - 1
        self.rows_done += bags if offsets is None else bags // max(len(self.sizes), 1)
        self.batches_done += 1

    def next_pass(self) -> None:
        """Close a pass."""
        if self._builder is None:
            tokens = self._candidates()
            self._counters = {}
            self._builder = self._make(tokens)
        elif isinstance(self._builder, ContextCodeBuilder):
            signed = None
            if self.budget_bytes is not None and self._builder.passes_done == 0:
                signed = self._within_budget(self._builder.stats())
            self._builder.next_pass(signed)
        self.passes_done += 1
        self.rows_done = self.batches_done = 0

    def finish(self, *, keep_ids: bool = False) -> SignatureTable:
        """The table; `keep_ids` as the builders'."""
        if isinstance(self.builder, ContextCodeBuilder):
            table = self.builder.finish(keep_ids=keep_ids)
        else:
            signed = self._signed(self.builder.stats())
            table = self.builder.finish(signed, keep_ids=keep_ids)
        if self._missed:
            table.provenance["may_miss_tokens_of_rows"] = self._missed
            _log.warning(
                "tokens may lack a signature, up to so many rows per table: %s; raise max_tokens",
                self._missed,
            )
        return table

    def _signed(self, stats: LogStats) -> dict[str, int] | None:
        """Tokens to sign per table, by their exact supports; None: all of enough support."""
        if self.budget_bytes is not None:
            return self._within_budget(stats)
        if self.num_signed is None:
            return None
        least = self.config.min_support
        enough = {n: table.tokens_with(least) for n, table in stats.tables.items()}
        return {**enough, **self.num_signed}

    def _make(
        self, tokens: Mapping[str, npt.NDArray[np.int64]]
    ) -> MinHashBuilder | ContextCodeBuilder:
        signed = dict(self.num_signed or {})
        if self.config.kind == "learned":
            return ContextCodeBuilder(self.sizes, self.config, signed, tokens=tokens)
        ranked = {name: count for name, count in signed.items() if self.sizes[name] is not None}
        return MinHashBuilder(self.sizes, self.config, ranked, tokens=tokens)

    def _within_budget(self, stats: LogStats) -> dict[str, int]:
        return signed_within(stats, self.budget_bytes or 0, self.config, self.sizes)

    def _candidates(self) -> dict[str, npt.NDArray[np.int64]]:
        """The tokens that the builder is to know, of the tables counted."""
        least = self.config.min_support
        if self.budget_bytes is not None:
            stats = LogStats.of([counter.stats() for counter in self._counters.values()])
            least = support_threshold(stats, self.budget_bytes, self.config, self.sizes)
        tokens = {}
        for name, counter in self._counters.items():
            wanted = None if self.num_signed is None else self.num_signed.get(name)
            tokens[name], missed = counter.candidates(wanted, 1 if wanted is not None else least)
            if missed:
                self._missed[name] = missed
        return tokens


__all__ = ["FitPasses"]
