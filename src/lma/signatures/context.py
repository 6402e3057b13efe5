"""Learned codes: a context vector per token, streamed from the log, then quantised.

Let M be the token x token matrix of a log: M[v, u] sums, over the rows in which tokens v and u
meet, 1 or the row's label residual (the label less both tokens' smoothed mean labels), and n_v
the rows of v. The popularity-scaled matrix

    X = D^-1/2 (M - popularity) D^-1/2,    D = diag(n + shrinkage)

is never formed. Pass 1 projects it onto random signs, Y = X R; every further pass projects onto
the vectors of the pass before, made orthonormal per table, Y = X orth(Y): a randomised SVD by
subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4). A token's context vector is
its row of D^-1/2 Y, its mean context pulled towards the average one, along the principal
directions of its table. Tokens with like vectors meet like company, so they get like codes.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from lma.errors import LmaError
from lma.hashing import table_salt, token_keys
from lma.signatures.config import SignatureConfig
from lma.signatures.context_space import (
    Space,
    blocks,
    mean_context,
    scaled,
    second_moment,
    sign_vectors,
    whitening,
)
from lma.signatures.new_tokens import sums_of_tokens
from lma.signatures.quantise import Codebooks, mean_squared_error
from lma.signatures.row_batch import RowBatch, check_labels
from lma.signatures.sections import SectionParts, make_table, most_frequent
from lma.signatures.stats import LogStats, TableStats
from lma.signatures.table import SignatureTable
from lma.signatures.tokens import KeyedTokens, RankedTokens, take_in, token_sets

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

# Tokens of a table without signatures still tell about the tokens they meet; so many of its most
# frequent ones keep a vector while building.
CONTEXT_TOKENS = 16_384
# Label residuals of a token seen in fewer rows are its own labels more than its company.
LABEL_FLOOR = 8
WHO = "ContextCodeBuilder"


@dataclasses.dataclass
class _State:
    """Arrays over the stored tokens of all tables, one table after the other.

    Attributes:
        where: Where each table's tokens lie.
        rows: Log rows used per token, [tokens].
        mean: Smoothed mean label of a token less the log's mean, [tokens].
        vectors: What the tokens that meet a token add to it, [tokens, dim].
        sums: What this pass has added up, [tokens, dim].
    """

    where: dict[str, slice]
    rows: F64
    mean: F32
    vectors: F32
    sums: F32


class ContextCodeBuilder:
    """Context vectors and codes of tokens, from several passes over a log.

    ::

        builder = ContextCodeBuilder(tables, SignatureConfig(kind="learned"))
        for _ in range(builder.num_passes):
            for batch in log:
                builder.update(batch.values, batch.offsets, batch.labels)
            builder.next_pass()
        table = builder.finish()

    The first pass counts tokens and labels; `stats()` then lets a plan decide whom to sign, which
    `next_pass(num_signed)` takes. Sums are the same bits for any sizes of batches and numbers of
    threads; merging builders adds floats, so there the order shows in the last digits.

    Args:
        tables: Vocabulary size of every feature's table, by name, in the order of the batches'
            features; ids ranked by support. None: ids are any 64-bit values.
        config: With kind "learned".
        num_signed: Tokens to sign per table; all tokens of a table that is left out.

    Memory: `8 * dim + 24` bytes per token of `num_signed` (280 at 32 dimensions) and 16 bytes per
    vocabulary token.
    """

    def __init__(
        self,
        tables: Mapping[str, int | None],
        config: SignatureConfig,
        num_signed: Mapping[str, int] | None = None,
    ) -> None:
        if config.kind != "learned":
            raise ValueError(
                f"ContextCodeBuilder: config.kind must be 'learned', found {config.kind!r}; "
                "MinHashBuilder makes random codes"
            )
        self.config = config
        self.tables = dict(tables)
        self.num_signed = dict(num_signed or {})
        self.tokens = token_sets(tables, {}, {}, "ContextCodeBuilder")
        self.passes_done = 0
        self.num_rows = 0
        self.num_labels = 0.0
        self._label_sums = {n: np.zeros(len(t.supports)) for n, t in self.tokens.items()}
        self._stats: LogStats | None = None
        self._state: _State | None = None
        self._rows_in_pass = 0
        self._spaces: dict[str, Space] = {}
        self._codebooks: dict[str, Codebooks] = {}

    @property
    def num_passes(self) -> int:
        """Passes over the log: one that counts, `config.passes` that project."""
        return 1 + self.config.passes

    # --- one pass ----------------------------------------------------------------------------

    def update(
        self,
        values: npt.ArrayLike,
        offsets: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        *,
        first_row: int | None = None,
        total_rows: int | None = None,
    ) -> None:
        """Take in a batch of log rows; every pass takes the same rows.

        Args:
            values: Token ids: int64 [batch, features], or feature-major [total] with `offsets`.
            offsets: int64 [features * batch + 1], where each bag begins.
            labels: 0 or 1 per row, [batch]; not needed by similarity "context".
            first_row, total_rows: Not used; taken so that all builders are called alike.

        Raises:
            TypeError, ValueError: Ids, offsets or labels cannot be used; says which and why.
            LmaError: All passes are done.
        """
        if self.passes_done == self.num_passes:
            raise LmaError("ContextCodeBuilder.update: all passes are done; call finish()")
        batch = RowBatch.of(values, offsets, len(self.tables), WHO)
        label = np.zeros(batch.num_rows)
        if self.config.similarity != "context":
            label = check_labels(labels, batch.num_rows, WHO).astype(np.float64)
        if self._state is None:
            self._count(batch, label)
        else:
            self._project(batch, label, self._state)
        self._rows_in_pass += batch.num_rows

    def _count(self, batch: RowBatch, label: F64) -> None:
        from lma.kernels.cpu.signatures_bags import add_labels

        slots = take_in(self.tokens, batch, WHO)
        row = np.repeat(np.arange(len(batch.offsets) - 1), np.diff(batch.offsets))
        row %= max(batch.num_rows, 1)
        for number, (name, tokens) in enumerate(self.tokens.items()):
            have, need = len(self._label_sums[name]), len(tokens.supports)
            if need > have:
                room = np.zeros(max(need, have * 3 // 2))
                room[:have] = self._label_sums[name]
                self._label_sums[name] = room
            where = batch.feature(number)
            add_labels(slots[where], row[where], label, self._label_sums[name])
        self.num_labels += float(label.sum())
        self.num_rows += batch.num_rows

    def _project(self, batch: RowBatch, label: F64, state: _State) -> None:
        from lma.kernels.cpu.signatures_context import add_contexts

        for number, tokens in enumerate(self.tokens.values()):
            tokens.check(batch.values[batch.feature(number)], WHO)
        similarity = self._similarity_of_pass
        rows = np.nonzero(label)[0] if similarity == "positive_context" else np.arange(len(label))
        add_contexts(
            batch.offsets,
            self._slots(batch, state),
            rows,
            batch.num_features,
            state.vectors,
            state.mean if similarity == "labelled_context" else None,
            (label - self._base_rate).astype(np.float32),
            state.sums,
        )

    def _slots(self, batch: RowBatch, state: _State) -> I64:
        slots = np.empty(len(batch.values), np.int64)
        for number, (name, tokens) in enumerate(self.tokens.items()):
            where = batch.feature(number)
            own = tokens.locate(batch.values[where], grow=False)
            slots[where] = np.where(own >= 0, own + state.where[name].start, -1)
        return slots

    @property
    def _similarity_of_pass(self) -> str:
        """What the current pass sums up.

        Residuals are mostly noise, from which subspace iteration is slow to find the directions
        that matter; positive contexts show them at once. So with labels all passes but the last
        sum positive contexts, and the last one projects residuals onto what they found.
        """
        last = self.passes_done == self.num_passes - 1
        if self.config.similarity == "labelled_context" and not last:
            return "positive_context"
        return self.config.similarity

    @property
    def _base_rate(self) -> float:
        """Mean label of the log."""
        return self.num_labels / max(self.num_rows, 1)

    def merge(self, other: ContextCodeBuilder) -> ContextCodeBuilder:
        """Add what another builder saw in the same pass. Returns self."""
        mine, theirs = ((b.config, b.tables, b.num_signed, b.passes_done) for b in (self, other))
        if mine != theirs:
            raise LmaError(f"cannot merge builders of different settings: {mine} and {theirs}")
        self._rows_in_pass += other._rows_in_pass
        if self._state is not None and other._state is not None:
            if not np.array_equal(self._state.vectors, other._state.vectors):
                raise LmaError(
                    "cannot merge builders that were not made by worker() of the same builder: "
                    "their earlier passes saw different rows"
                )
            self._state.sums += other._state.sums
            return self
        for name, tokens in self.tokens.items():
            slots = tokens.merge(other.tokens[name])
            sums = np.zeros(len(tokens.supports))
            sums[: len(self._label_sums[name])] = self._label_sums[name][: len(sums)]
            sums[slots] += other._label_sums[name][: len(slots)]
            self._label_sums[name] = sums
        self.num_labels += other.num_labels
        self.num_rows += other.num_rows
        return self

    def worker(self) -> ContextCodeBuilder:
        """A copy that has seen nothing of the current pass: another process's share of it."""
        if self._state is None:
            return ContextCodeBuilder(self.tables, self.config, self.num_signed)
        twin = copy.copy(self)
        twin._state = dataclasses.replace(self._state, sums=np.zeros_like(self._state.sums))
        twin._rows_in_pass = 0
        return twin

    # --- between passes ------------------------------------------------------------------------

    def stats(self) -> LogStats:
        """Support histograms of the counting pass, for `lma.plan`."""
        if self._stats is not None:
            return self._stats
        return LogStats.of([TableStats.of_supports(n, t.supports) for n, t in self.tokens.items()])

    def next_pass(self, num_signed: Mapping[str, int] | None = None) -> None:
        """Close a pass over the log.

        Args:
            num_signed: After the counting pass: tokens to sign per table, as a plan decides,
                instead of what the constructor was given.
        """
        if self.passes_done == self.num_passes:
            raise LmaError("ContextCodeBuilder.next_pass: all passes are done; call finish()")
        if self._state is None:
            if num_signed is not None:
                self.num_signed = dict(num_signed)
            self._start()
            self._rows_in_pass = 0
            return
        elif self._rows_in_pass != self.num_rows:
            raise LmaError(
                f"ContextCodeBuilder: pass {self.passes_done + 1} saw {self._rows_in_pass} rows, "
                f"the counting pass {self.num_rows}; every pass needs the same rows"
            )
        elif self.passes_done + 1 < self.num_passes:
            self._sharpen(self._state)
        else:
            for name, where in self._state.where.items():
                self._spaces[name] = Space.fit(
                    self._state.sums[where], self._state.rows[where], self.config.shrinkage
                )
        self.passes_done += 1
        self._rows_in_pass = 0

    def _start(self) -> None:
        """Choose the tokens to store; their first vectors are random signs."""
        self._stats = self.stats()
        # Of the pass that this starts.
        self.passes_done += 1
        positive = self._similarity_of_pass == "positive_context"
        where, rows, mean, vectors = {}, [], [], []
        begin = 0
        for name, tokens in self.tokens.items():
            sign = len(most_frequent(tokens, self.num_signed.get(name), self.config.min_support))
            self.num_signed[name] = sign
            slots = most_frequent(tokens, max(sign, CONTEXT_TOKENS), 1)
            support = tokens.supports[slots].astype(np.float64)
            labels = self._label_sums[name][slots]
            ids = tokens.ids()[slots]
            where[name] = slice(begin, begin + len(slots))
            begin += len(slots)
            rows.append(labels if positive else support)
            shrinkage = max(self.config.shrinkage, 1e-9)
            mean.append((labels - support * self._base_rate) / (support + shrinkage))
            keys = token_keys(np.uint64(table_salt(name)), ids)
            signs = sign_vectors(keys, self.config.dim, self.config.seed)
            vectors.append(signs * self._popularity(rows[-1]))
            if isinstance(tokens, RankedTokens):
                self.tokens[name] = tokens.keep(len(slots))
            else:
                self.tokens[name] = KeyedTokens(name, ids, tokens.supports[slots])
        self._label_sums = {}
        stacked = np.concatenate(vectors) if vectors else np.zeros((0, self.config.dim), np.float32)
        self._state = _State(
            where,
            np.concatenate(rows) if rows else np.zeros(0),
            np.concatenate(mean).astype(np.float32) if mean else np.zeros(0, np.float32),
            stacked,
            np.zeros_like(stacked),
        )

    def _popularity(self, rows: F64) -> F32:
        """The scale of a token's vector as others meet it, [tokens, 1]."""
        scale = (rows + max(self.config.shrinkage, 1e-9)) ** -0.5
        return np.asarray(scale, dtype=np.float32)[:, None]

    def _sharpen(self, state: _State) -> None:
        """The next pass projects onto this one's vectors, made orthonormal within each table."""
        shrinkage = self.config.shrinkage
        for where in state.where.values():
            sums, rows = state.sums[where], state.rows[where]
            mean = mean_context(sums, rows)
            turn = whitening(second_moment(sums, rows, mean, shrinkage, 0.5))
            for block in blocks(len(sums)):
                z = scaled(sums[block], rows[block], mean, shrinkage, 0.5)
                vectors = (z @ turn).astype(np.float32)
                state.vectors[where][block] = vectors * self._popularity(rows[block])
        state.sums[:] = 0
        if self.config.similarity == "labelled_context" and self.passes_done == self.num_passes - 2:
            for name, where in state.where.items():
                state.rows[where] = self.tokens[name].supports[: where.stop - where.start]

    # --- results -------------------------------------------------------------------------------

    def vectors(self, table: str) -> F32:
        """Context vectors of a table's stored tokens, float32 [tokens, dim], in slot order.

        With dense ids, row i is token i; there are at least `num_signed[table]` rows. A control:
        initialise full or low-dimensional tables with them.
        """
        state = self._finished("vectors")
        where = state.where[table]
        return self._spaces[table].vectors(state.sums[where], state.rows[where])

    def finish(self, num_signed: Mapping[str, int] | None = None) -> SignatureTable:
        """Quantise, and freeze into a `SignatureTable` with sections of kind "learned".

        Args:
            num_signed: Tokens to keep per table, at most those built; None: those built.
        """
        state = self._finished("finish")
        parts, lost = [], {}
        for name, tokens in self.tokens.items():
            built = self.num_signed[name]
            count = min(built, (num_signed or {}).get(name, built))
            if not count:
                continue
            slots = most_frequent(tokens, count, 1)
            rows = state.rows[state.where[name]][slots]
            vectors = self._without_labels_of_few(self.vectors(name)[slots], rows)
            # As a model's loss does: a token counts as often as it occurs.
            weights = rows + 1e-9
            config = self.config
            books = Codebooks.fit(
                vectors, weights, config.num_codes, config.code_bits, config.quantiser, config.seed
            )
            codes = books.encode(vectors, torch.get_num_threads())
            lost[name] = mean_squared_error(vectors, books.decode(codes), weights)
            self._codebooks[name] = books
            parts.append(SectionParts.of(tokens, tokens.ids()[slots], codes, config))
        provenance = {
            "rows": self.num_rows,
            "dim": self.config.dim,
            "passes": self.config.passes,
            "quantiser": self.config.quantiser,
            "lost_energy": lost,
        }
        return make_table(parts, self.config.seed, provenance)

    def encode(
        self,
        table: str,
        values: npt.ArrayLike,
        offsets: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
    ) -> tuple[I64, I64]:
        """Codes of tokens from a handful of rows, after `finish`: tokens met since training.

        Args:
            table: The table of the tokens to encode.
            values, offsets, labels: Rows as `update` takes them; ids of that table may be any.

        Returns:
            The table's distinct ids in the rows, ascending, and their codes [ids, num_codes].
        """
        state = self._finished("encode")
        if table not in self._codebooks:
            raise LmaError(
                f"ContextCodeBuilder.encode: table {table!r} has no codes; there are codes for "
                f"{list(self._codebooks)} (call finish() first)"
            )
        batch = RowBatch.of(values, offsets, len(self.tables), WHO)
        label = np.zeros(batch.num_rows)
        if self.config.similarity != "context":
            label = check_labels(labels, batch.num_rows, WHO).astype(np.float64)
        ids, sums, rows = sums_of_tokens(
            batch,
            list(self.tables).index(table),
            self._slots(batch, state),
            state.vectors,
            state.mean if self.config.similarity == "labelled_context" else None,
            (label - self._base_rate).astype(np.float32),
            label == 1 if self.config.similarity == "positive_context" else label >= 0,
            self.config.shrinkage,
        )
        vectors = self._without_labels_of_few(self._spaces[table].vectors(sums, rows), rows)
        return ids, self._codebooks[table].encode(vectors)

    def _without_labels_of_few(self, vectors: F32, rows: F64) -> F32:
        """The average token's vector, zero, for tokens whose few labels a code would give away."""
        if self.config.similarity == "labelled_context":
            vectors[rows < LABEL_FLOOR] = 0
        return vectors

    def _finished(self, what: str) -> _State:
        if self._state is None or self.passes_done < self.num_passes:
            raise LmaError(
                f"ContextCodeBuilder.{what}: {self.passes_done} of {self.num_passes} passes are "
                "done; update with every row and call next_pass() for each"
            )
        return self._state


__all__ = ["ContextCodeBuilder"]
