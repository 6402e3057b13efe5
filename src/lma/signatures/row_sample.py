"""Rows of a log that are kept in memory, chosen by a hash of their numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from lma.errors import LmaError
from lma.hashing import combine, stream_seed
from lma.signatures.row_batch import RowBatch

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

STREAM_ROW = (1 << 20) + 5  # stream of the hash family
MAX_ENTRIES = 1 << 23  # 64 MB of ids, and as much again for bags and hashes


@dataclasses.dataclass
class RowSample:
    """The rows whose hash is below a threshold, which falls as the log grows.

    All rows of a log of at most `max_entries` entries, else between a quarter and all of so many.
    Which rows does not depend on the order of adding, nor on who added them.

    Attributes:
        seed: Of the hash.
        max_entries: Token ids to keep at most.
        pieces: Rows kept, and their hashes, in the order they came.
        shift: Rows are kept whose hash has so many leading zeros.
        num_entries: Token ids kept.
        numbered: Whether all rows came with their numbers in the log.
    """

    seed: int
    max_entries: int = MAX_ENTRIES
    pieces: list[tuple[RowBatch, U64]] = dataclasses.field(default_factory=list)
    shift: int = 0
    num_entries: int = 0
    numbered: bool = True

    def add(self, batch: RowBatch, first_row: int, rows: I64) -> None:
        """Take in some rows of a batch.

        Args:
            batch: Log rows.
            first_row: Number of the batch's first row in the log.
            rows: Those to choose from, positions in the batch.
        """
        numbers = (rows + first_row).astype(np.uint64)
        hashes = combine(np.uint64(stream_seed(self.seed, STREAM_ROW)), numbers)
        kept = self._below(hashes)
        if kept.any():
            self.pieces.append((batch.take(rows[kept]), hashes[kept]))
            self.num_entries += len(self.pieces[-1][0].values)
        self._thin()

    def merge(self, other: RowSample) -> None:
        """Take in what another kept of other rows of the log.

        Raises:
            LmaError: Not all rows fit, and some came without their numbers: which ones are kept
                would turn on who read them.
        """
        self.shift = max(self.shift, other.shift)
        self.numbered = self.numbered and other.numbered
        self.pieces.extend(other.pieces)
        self._filter()
        self._thin()
        if self.shift and not self.numbered:
            raise LmaError(
                "merge: this log is too large to keep all of its rows, so builders must know "
                "which ones they read: pass first_row to every update of the counting pass"
            )

    def _below(self, hashes: U64) -> npt.NDArray[np.bool_]:
        return np.asarray(hashes < np.uint64(1 << (64 - self.shift))) if self.shift else hashes >= 0

    def _thin(self) -> None:
        while self.num_entries > self.max_entries:
            self.shift += 1
            self._filter()

    def _filter(self) -> None:
        thinner = []
        for batch, hashes in self.pieces:
            kept = self._below(hashes)
            if not kept.all():
                batch, hashes = batch.take(np.flatnonzero(kept)), hashes[kept]
            if len(hashes):
                thinner.append((batch, hashes))
        self.pieces = thinner
        self.num_entries = sum(len(batch.values) for batch, _ in thinner)


__all__ = ["RowSample"]
