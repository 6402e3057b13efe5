"""What `ContextCodeBuilder` holds while it projects a log: vectors, and sums of what they meet."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

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
from lma.signatures.context_sums import ContextSums
from lma.signatures.row_batch import RowBatch
from lma.signatures.tokens import Tokens

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclasses.dataclass
class ContextState:
    """Arrays over the stored tokens of all tables, one table after the other.

    Attributes:
        config: Of the builder.
        where: Where each table's tokens lie.
        rows: Log rows used per token, [tokens]; exact up to 2^24.
        all_rows: Rows per token of any label, [tokens]; only for "labelled_context", as `mean`.
        mean: Smoothed mean label of a token less the log's mean, [tokens].
        vectors: What the tokens that meet a token add to it, [tokens, dim].
        sums: What this pass has added up, per table.
    """

    config: SignatureConfig
    where: dict[str, slice]
    rows: F32
    all_rows: F32
    mean: F32
    vectors: F32
    sums: dict[str, ContextSums]

    @classmethod
    def start(
        cls,
        config: SignatureConfig,
        tokens: Mapping[str, Tokens],
        supports: Mapping[str, I64],
        labels: Mapping[str, F64],
        base_rate: float,
    ) -> ContextState:
        """The first vectors of the tokens to store: random signs.

        The pass that begins takes all rows, or with labels those of label 1 alone.

        Args:
            config: Of the builder.
            tokens: The tokens to store, per table, most frequent first.
            supports: Rows they occur in, per table.
            labels: Sums of their labels, per table.
            base_rate: The log's mean label.
        """
        bounds = np.cumsum([0, *(t.num_slots for t in tokens.values())]).tolist()
        labelled = bounds[-1] if config.similarity == "labelled_context" else 0
        state = cls(
            config,
            {n: slice(a, b) for n, a, b in zip(tokens, bounds, bounds[1:], strict=False)},
            np.empty(bounds[-1], np.float32),
            np.empty(labelled, np.float32),
            np.empty(labelled, np.float32),
            np.empty((bounds[-1], config.dim), np.float32),
            {},
        )
        for name, table in tokens.items():
            where, ids, support = state.where[name], table.ids(), supports[name]
            state.rows[where] = support if config.similarity == "context" else labels[name]
            if labelled:
                state.all_rows[where] = support
                mean = (labels[name] - support * base_rate) / (support + state.shrinkage)
                state.mean[where] = mean
            for block in blocks(len(ids)):
                keys = token_keys(np.uint64(table_salt(name)), ids[block])
                signs = sign_vectors(keys, config.dim, config.seed)
                signs *= state.popularity(state.rows[where][block])
                state.vectors[where][block] = signs
            state.sums[name] = ContextSums.zeros(support, config.dim)
        return state

    @property
    def shrinkage(self) -> float:
        """Rows of the average token that every token starts with."""
        return max(self.config.shrinkage, 1e-9)

    def popularity(self, rows: F32) -> F32:
        """The scale of a token's vector as others meet it, [tokens, 1]."""
        scale = (rows.astype(np.float64) + self.shrinkage) ** -0.5
        return np.asarray(scale, dtype=np.float32)[:, None]

    def sharpen(self) -> float:
        """The next pass projects onto this one's vectors, made orthonormal within each table.

        Returns:
            What the vectors catch of the scaled token x context matrix: the sum of their singular
            values over all tables.
        """
        energy = 0.0
        shrinkage = self.config.shrinkage
        for name, where in self.where.items():
            sums, rows = self.sums[name], self.rows[where]
            mean = mean_context(sums, rows)
            moment = second_moment(sums, rows, mean, shrinkage, 0.5)
            energy += float(np.sqrt(np.maximum(np.linalg.eigvalsh(moment), 0)).sum())
            turn = whitening(moment)
            for block in blocks(len(sums)):
                z = scaled(sums[block], rows[block], mean, shrinkage, 0.5)
                vectors = (z @ turn).astype(np.float32)
                self.vectors[where][block] = vectors * self.popularity(rows[block])
        return energy

    def leave_out(self) -> None:
        """Nobody meets the tokens of other than the context fields from now on.

        Before the last pass, not earlier: what context tokens are like shows in whom they meet,
        and of a single context field none meets another.
        """
        told = self.config.told(self.where)
        for where, counts in zip(self.where.values(), told, strict=True):
            if not counts:
                self.vectors[where] = 0

    def restart(self, longest: int, labelled: bool) -> None:
        """Zero sums for a pass in which a row has up to `longest` entries.

        Others' vectors add up, with labels weighted by |label - mean - mean| <= 3.
        """
        largest = max(
            (float(np.abs(self.vectors[b]).max()) for b in blocks(len(self.vectors))), default=0.0
        )
        bound = longest * largest * (3 if labelled else 1)
        for name, where in self.where.items():
            self.sums[name].restart(self.rows[where], bound)

    def spaces(self) -> dict[str, Space]:
        """The principal directions of every table, after the last pass."""
        return {
            name: Space.fit(self.sums[name], self.rows[where], self.config.shrinkage)
            for name, where in self.where.items()
        }

    def slots(self, tokens: Mapping[str, Tokens], batch: RowBatch) -> I64:
        """Stored token of every entry of a batch, -1 for none."""
        slots = np.empty(len(batch.values), np.int64)
        for number, (name, table) in enumerate(tokens.items()):
            entries = batch.feature(number)
            own = table.locate(batch.values[entries], grow=False)
            slots[entries] = np.where(own >= 0, own + self.where[name].start, -1)
        return slots

    def add(self, slots: I64, offsets: I64, rows: I64, targets: F32, labelled: bool) -> None:
        """Add up what the tokens of some rows meet.

        Args:
            slots: Stored token of every entry of a batch, -1 for none.
            offsets: Where its bags begin, as `RowBatch.offsets`.
            rows: The rows to use, positions in the batch.
            targets: Label less the log's mean, per row of the batch.
            labelled: Whether contexts are weighted by label residuals.
        """
        from lma.kernels.cpu.signatures_context import add_contexts

        add_contexts(
            offsets,
            slots,
            rows,
            [where.start for where in self.where.values()],
            self.vectors,
            self.mean if labelled else None,
            targets,
            [(s.exponents, s.wide, s.narrow) for s in self.sums.values()],
        )

    def twin(self) -> ContextState:
        """The same vectors, nothing added yet."""
        twin = copy.copy(self)
        twin.sums = {name: sums.twin() for name, sums in self.sums.items()}
        return twin


__all__ = ["ContextState"]
