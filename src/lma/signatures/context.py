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
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lma.errors import LmaError
from lma.hashing import HASH_VERSION, table_salt
from lma.signatures.config import SignatureConfig
from lma.signatures.context_count import ContextCount
from lma.signatures.context_space import Space
from lma.signatures.context_start import give_back_freed, start
from lma.signatures.context_state import ContextState
from lma.signatures.fingerprints import FingerprintIndex
from lma.signatures.merging import check_mergeable
from lma.signatures.new_tokens import sums_of_tokens
from lma.signatures.quantise import Codebooks, quantise
from lma.signatures.row_batch import RowBatch, check_first_row, check_labels
from lma.signatures.row_sample import RowSample
from lma.signatures.sections import SectionParts, make_table
from lma.signatures.stats import LogStats, TableStats
from lma.signatures.table import SignatureTable
from lma.signatures.tokens import RankedTokens, array_checksum, check_counts, token_sets

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

# Label residuals of a token seen in fewer rows are its own labels more than its company.
LABEL_FLOOR = 8
WHO = "ContextCodeBuilder"


class ContextCodeBuilder:
    """Context vectors and codes of tokens, from several passes over a log.

    ::

        builder = ContextCodeBuilder(tables, SignatureConfig(kind="learned"))
        for _ in range(builder.num_passes):
            for batch in log:
                builder.update(batch.values, batch.offsets, batch.labels)
            builder.next_pass()
        table = builder.finish()

    The first pass counts; then `stats()` lets a plan decide whom `next_pass(num_signed)` signs.
    Sums are integers: the same bits for any batches, numbers of threads and order of merging.

    Args:
        tables: Vocabulary size of every feature's table, by name, in the order of the batches'
            features; ids ranked by support. None: ids are any 64-bit values.
        config: With kind "learned".
        num_signed: Tokens to sign per table; all tokens of a table that is left out.
        tokens: For tables of size None: the ids to know, instead of all that are met.

    Memory: `8 * dim + 5` bytes per token of `num_signed` (261 at 32 dimensions), 8 more with
    labelled contexts and 14 more where ids are any values; while counting, 16 bytes per
    vocabulary token, or 29 to 35.
    """

    def __init__(
        self,
        tables: Mapping[str, int | None],
        config: SignatureConfig,
        num_signed: Mapping[str, int] | None = None,
        *,
        tokens: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        if config.kind != "learned":
            raise ValueError(
                f"ContextCodeBuilder: config.kind must be 'learned', found {config.kind!r}; "
                "MinHashBuilder makes random codes"
            )
        self.config = config
        self.tables = dict(tables)
        config.told(tables)  # an unknown field is refused before any row is read
        self.num_signed = dict(num_signed or {})
        check_counts(self.num_signed, tables, WHO)
        self.tokens = token_sets(tables, {}, tokens or {}, WHO)
        self._given = {name: array_checksum(self.tokens[name].ids()) for name in tokens or {}}
        self.hash_version = HASH_VERSION
        self.passes_done = 0
        self._count = ContextCount(self.tokens, config.seed)
        self._stats: LogStats | None = None
        self._state: ContextState | None = None
        self._rows_in_pass = 0
        self._spaces: dict[str, Space] = {}
        self._codebooks: dict[str, Codebooks] = {}

    @property
    def num_passes(self) -> int:
        """Passes over the log: one that counts, `config.passes` that project."""
        return 1 + self.config.passes

    @property
    def num_rows(self) -> int:
        """Rows of the log."""
        return self._count.num_rows

    @property
    def num_tokens(self) -> int:
        """Tokens seen."""
        return self.stats().num_tokens if self._stats else sum(t.seen for t in self.tokens.values())

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
            first_row: Number of the batch's first row in the log, for the sample of rows; None:
                rows are numbered as this builder gets them, which will not do for builders that
                are merged and together see more rows than the sample holds.
            total_rows: Not used; taken so that all builders are called alike.

        Raises:
            TypeError, ValueError: Ids, offsets or labels cannot be used; says which and why.
            LmaError: All passes are done.
        """
        if self.passes_done == self.num_passes:
            raise LmaError("ContextCodeBuilder.update: all passes are done; call finish()")
        batch = RowBatch.of(values, offsets, len(self.tables), WHO)
        label = self._label(labels, batch)
        check_first_row(first_row, batch.num_rows, WHO)
        if self._state is None:
            first = self._rows_in_pass if first_row is None else first_row
            self._count.sample.numbered &= first_row is not None
            sampled = label >= 0 if self.config.similarity == "context" else label == 1
            self._count.add(batch, label, np.flatnonzero(sampled), first, WHO)
        else:
            for number, tokens in enumerate(self.tokens.values()):
                tokens.check(batch.values[batch.feature(number)], WHO)
            similarity = self._similarity_of_pass
            used = label == 1 if similarity == "positive_context" else label >= 0
            self._state.add(
                self._state.slots(self.tokens, batch),
                batch.offsets,
                np.flatnonzero(used),
                (label - self._count.base_rate).astype(np.float32),
                similarity == "labelled_context",
            )
        self._rows_in_pass += batch.num_rows

    def _label(self, labels: npt.ArrayLike | None, batch: RowBatch) -> F64:
        if self.config.similarity == "context":
            return np.zeros(batch.num_rows)
        return check_labels(labels, batch.num_rows, WHO).astype(np.float64)

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

    # --- several processes -------------------------------------------------------------------

    def merge(self, other: ContextCodeBuilder) -> ContextCodeBuilder:
        """Add what another builder saw in the same pass. Returns self."""
        check_mergeable(self, other, "; make workers by worker() of one builder, in each pass anew")
        self._rows_in_pass += other._rows_in_pass
        if self._state is not None and other._state is not None:
            for name, sums in self._state.sums.items():
                sums.merge(other._state.sums[name])
            return self
        self._count.merge(other._count)
        return self

    def worker(self) -> ContextCodeBuilder:
        """A copy that has seen nothing of the current pass: another process's share of it."""
        if self._state is None:
            given = {name: self.tokens[name].ids() for name in self._given}
            return ContextCodeBuilder(self.tables, self.config, self.num_signed, tokens=given)
        twin = copy.copy(self)
        twin._state = self._state.twin()
        twin._rows_in_pass = 0
        return twin

    def settings(self) -> dict[str, object]:
        """What builders must have in common to be merged."""
        return {
            "config": self.config,
            "tables": list(self.tables.items()),
            "num_signed": self.num_signed,
            "tokens": self._given,
            "hash_version": self.hash_version,
            "passes_done": self.passes_done,
            "vectors": None if self._state is None else array_checksum(self._state.vectors),
        }

    def reduce(
        self,
        over_all: Callable[[npt.NDArray[np.generic], str], None],
        gather: Callable[[RowSample], Sequence[RowSample]],
    ) -> None:
        """Merge with the same builder of other processes (`all_reduce`).

        Args:
            over_all: over_all(array, how) changes an array in place to its "sum" or "max" over
                all processes.
            gather: The samples of all processes, from this one's.
        """
        passed = np.array([self._rows_in_pass])
        over_all(passed, "sum")
        self._rows_in_pass = int(passed[0])
        if self._state is not None:
            for sums in self._state.sums.values():
                over_all(sums.wide, "sum")
                over_all(sums.narrow, "sum")
            return
        self._count.reduce(over_all, gather)

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
        if self._rows_in_pass != self._count.num_rows:
            raise LmaError(
                f"ContextCodeBuilder: pass {self.passes_done + 1} saw {self._rows_in_pass} rows, "
                f"the counting pass {self._count.num_rows}; every pass needs the same rows"
            )
        check_counts(num_signed or {}, self.tables, f"{WHO}.next_pass")
        self.passes_done += 1
        self._rows_in_pass = 0
        if self._state is None:
            if num_signed is not None:
                self.num_signed = dict(num_signed)
            self._stats = self.stats()
            self._state = start(self.config, self.tokens, self._count, self.num_signed)
        elif self.passes_done == self.num_passes:
            self._spaces = self._state.spaces()
            for tokens in self.tokens.values():
                tokens.rest()  # only `encode` looks ids up again
            give_back_freed()
            return
        else:
            self._state.sharpen()
        if self.passes_done == self.num_passes - 1:
            self._state.leave_out()
        labelled = self._similarity_of_pass == "labelled_context"
        if labelled:
            self._state.rows[:] = self._state.all_rows
        self._state.restart(self._count.longest, labelled)

    def vectors(self, table: str) -> F32:
        """Context vectors of a table's stored tokens, float32 [tokens, dim], in slot order.

        With dense ids, row i is token i; there are at least `num_signed[table]` rows. A control:
        initialise full or low-dimensional tables with them.
        """
        state = self._finished("vectors")
        return self._spaces[table].vectors(state.sums[table], state.rows[state.where[table]])

    def finish(
        self, num_signed: Mapping[str, int] | None = None, *, keep_ids: bool = False
    ) -> SignatureTable:
        """Quantise, and freeze into a `SignatureTable` with sections of kind "learned".

        Args:
            num_signed: Tokens to keep per table, at most those built; None: those built.
            keep_ids: Also keep the ids of tables of any ids, 8 bytes per token in a file of their
                own that no model loads, for `neighbours`.
        """
        self._finished("finish")
        check_counts(num_signed or {}, self.tables, f"{WHO}.finish")
        parts, lost = [], {}
        for name, tokens in self.tokens.items():
            built = self.num_signed[name]
            count = min(built, (num_signed or {}).get(name, built))
            if count:
                ids = index = None
                if not isinstance(tokens, RankedTokens):
                    ids = tokens.ids()[:count]
                    # Before there are codes: its making is what takes most memory here.
                    index = FingerprintIndex.of_tokens(table_salt(name), ids)
                books, codes, lost[name] = quantise(self._vectors_of(name), count, self.config)
                self._codebooks[name] = books
                made = tokens, ids, codes, self.config, books, index
                parts.append(SectionParts.of(*made, keep_ids=keep_ids))
                # Packed by now; they must not wait for the next table's.
                del made, codes, index
        told = {name: getattr(self.config, name) for name in ("dim", "passes", "quantiser")}
        provenance = {"rows": self._count.num_rows, **told, "lost_energy": lost}
        return make_table(parts, self.config.seed, provenance)

    def _vectors_of(self, name: str) -> Callable[[slice], tuple[F32, F64]]:
        """Vectors to quantise and weights of a table's tokens, block by block."""
        state, space = self._finished("finish"), self._spaces[name]
        sums, all_rows = state.sums[name], state.rows[state.where[name]]

        def vectors(block: slice) -> tuple[F32, F64]:
            rows = all_rows[block].astype(np.float64)
            found = self._without_labels_of_few(space.vectors(sums[block], rows), rows)
            # As a model's loss does: a token counts as often as it occurs.
            return found, rows + 1e-9

        return vectors

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
        label = self._label(labels, batch)
        ids, sums, rows = sums_of_tokens(
            batch,
            list(self.tables).index(table),
            state.slots(self.tokens, batch),
            state.vectors,
            state.mean if self.config.similarity == "labelled_context" else None,
            (label - self._count.base_rate).astype(np.float32),
            label == 1 if self.config.similarity == "positive_context" else label >= 0,
            self.config.shrinkage,
        )
        vectors = self._without_labels_of_few(self._spaces[table].vectors(sums, rows), rows)
        return ids, self._codebooks[table].encode(vectors)

    def _without_labels_of_few(self, vectors: F32, rows: F64) -> F32:
        """The average token's vector, zero, for tokens whose few labels a code would give away."""
        vectors[(rows < LABEL_FLOOR) & (self.config.similarity == "labelled_context")] = 0
        return vectors

    def _finished(self, what: str) -> ContextState:
        if self._state is None or self.passes_done < self.num_passes:
            raise LmaError(
                f"ContextCodeBuilder.{what}: {self.passes_done} of {self.num_passes} passes are "
                "done; update with every row and call next_pass() for each"
            )
        return self._state


__all__ = ["ContextCodeBuilder"]
