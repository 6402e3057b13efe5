"""Min-hash signatures of the tokens of a click log, built in one streaming pass.

P[two min-hashes agree] is the Jaccard similarity of the two sets (Broder 1997); a code is a hash
of the element that won, cut to `code_bits`, so two codes agree with probability
p = psi + (1 - psi) / 2^code_bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lma.errors import LmaError
from lma.hashing import (
    combine,
    mix64,
    reduce_range,
    stream_seed,
    stream_seeds,
    table_salt,
    token_keys,
)
from lma.signatures.config import SignatureConfig
from lma.signatures.stats import LogStats, TableStats
from lma.signatures.table import CODE_PADDING, Section, SignatureTable, pack_codes

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)  # the minimum over no elements
CHUNK_ROWS = 8192  # rows hashed at a time, to bound scratch memory
# Streams of the hash family that signatures draw from; codes use 0 ... num_codes - 1.
STREAM_SAMPLE, STREAM_CODE, STREAM_LABEL = 1 << 20, (1 << 20) + 1, (1 << 20) + 2


class MinHashBuilder:
    """Min-hashes of tokens, from batches of the log; results do not depend on batches' sizes.

    Args:
        tables: Vocabulary size of every feature's table, by name, in the order of the batches'
            features; ids must be ranked by support, most frequent first.
        config: Similarity, number and width of codes, seed.
        num_signed: Tokens to build a signature for, per table (a plan's decision); all tokens
            of a table that is left out.

    Memory: `8 * num_codes` bytes per token of `num_signed`, and 8 bytes per vocabulary token for
    its support.
    """

    def __init__(
        self,
        tables: Mapping[str, int],
        config: SignatureConfig,
        num_signed: Mapping[str, int] | None = None,
    ) -> None:
        self.tables = dict(tables)
        self.config = config
        for name, size in self.tables.items():
            if size is None or size < 0:
                raise ValueError(f"MinHashBuilder: table {name!r} needs a size, found {size}")
        keep = num_signed or {}
        self.num_signed = {
            name: min(size, keep.get(name, size)) for name, size in self.tables.items()
        }
        self.minima = {
            name: np.full((count, config.num_codes), NOTHING)
            for name, count in self.num_signed.items()
        }
        self.support = {name: np.zeros(size, np.int64) for name, size in self.tables.items()}
        self.sampled = {name: np.zeros(count, np.int64) for name, count in self.num_signed.items()}
        self.num_rows = 0
        self._seeds = stream_seeds(config.seed, config.num_codes)
        self._salts = np.array([table_salt(name) for name in self.tables], dtype=np.uint64)

    # --- update ----------------------------------------------------------------------------

    def update(
        self,
        values: npt.ArrayLike,
        offsets: npt.ArrayLike | None = None,
        labels: npt.ArrayLike | None = None,
        *,
        first_row: int | None = None,
        total_rows: int | None = None,
    ) -> None:
        """Take in a batch of log rows.

        Args:
            values: Token ids: int64 [batch, features], or feature-major [total] with `offsets`.
            offsets: int64 [features * batch + 1], where each bag begins.
            labels: 0 or 1 per row, [batch]; needed by "labelled_context" only.
            first_row: Number of the first row in the whole log, which makes row numbers global
                when several builders share the work; counts on from the last update if None.
            total_rows: Rows of the whole log, needed when `config.sample_rows` is set.
        """
        ids, offs, batch = self._check_batch(values, offsets)
        label = self._check_labels(labels, batch)
        first = self.num_rows if first_row is None else first_row
        self.num_rows += batch
        rows = np.arange(first, first + batch, dtype=np.int64)
        padded, present = _padded(ids, offs, len(self.tables), batch)
        self._count(padded, present)
        keep = self._sample(rows, total_rows)
        for start in range(0, batch, CHUNK_ROWS):
            chosen = np.nonzero(keep[start : start + CHUNK_ROWS])[0] + start
            if len(chosen):
                self._absorb(
                    [p[chosen] for p in padded],
                    [m[chosen] for m in present],
                    rows[chosen],
                    None if label is None else label[chosen],
                )

    def _check_batch(
        self, values: npt.ArrayLike, offsets: npt.ArrayLike | None
    ) -> tuple[I64, I64 | None, int]:
        ids = np.asarray(values)
        if ids.dtype.kind not in "iu" or (ids.dtype == np.uint64):
            raise TypeError(f"MinHashBuilder.update: values must be int64 ids, found {ids.dtype}")
        ids = ids.astype(np.int64, copy=False)
        features = len(self.tables)
        if offsets is None:
            if ids.ndim != 2 or ids.shape[1] != features:
                raise ValueError(
                    f"MinHashBuilder.update: without offsets, values must be [batch, {features}], "
                    f"found {list(ids.shape)}"
                )
            return ids, None, len(ids)
        offs = np.asarray(offsets)
        if offs.dtype.kind not in "iu" or offs.ndim != 1 or (len(offs) - 1) % features:
            raise ValueError(
                f"MinHashBuilder.update: offsets must be integers [{features} * batch + 1], "
                f"found {offs.dtype} {list(offs.shape)}"
            )
        offs = offs.astype(np.int64)
        if ids.ndim != 1 or offs[0] != 0 or offs[-1] != len(ids) or np.any(np.diff(offs) < 0):
            raise ValueError(
                "MinHashBuilder.update: offsets must ascend from 0 to len(values), found "
                f"{offs[0]} ... {offs[-1]} for values of shape {list(ids.shape)}"
            )
        return ids, offs, (len(offs) - 1) // features

    def _check_labels(self, labels: npt.ArrayLike | None, batch: int) -> U64 | None:
        if self.config.similarity != "labelled_context":
            return None
        if labels is None:
            raise ValueError("MinHashBuilder.update: 'labelled_context' needs labels")
        label = np.asarray(labels)
        if label.shape != (batch,) or not np.all((label == 0) | (label == 1)):
            raise ValueError(
                f"MinHashBuilder.update: labels must be 0 or 1, shape [{batch}], "
                f"found shape {list(label.shape)} with values {np.unique(label)[:5]}"
            )
        return label.astype(np.uint64)

    def _count(self, padded: list[I64], present: list[npt.NDArray[np.bool_]]) -> None:
        for (name, size), ids, mask in zip(self.tables.items(), padded, present, strict=True):
            chosen = ids[mask]
            if len(chosen) and (chosen.min() < 0 or chosen.max() >= size):
                bad = chosen[(chosen < 0) | (chosen >= size)][0]
                raise ValueError(
                    f"MinHashBuilder.update: id {bad} of table {name!r} is outside [0, {size})"
                )
            self.support[name] += np.bincount(chosen, minlength=size)

    def _sample(self, rows: I64, total_rows: int | None) -> npt.NDArray[np.bool_]:
        wanted = self.config.sample_rows
        if wanted is None:
            return np.ones(len(rows), np.bool_)
        if total_rows is None:
            raise ValueError("MinHashBuilder.update: sample_rows needs total_rows")
        # A row is kept by a hash of its number, so shards and processes agree on the sample.
        place = reduce_range(combine(stream_seed(self.config.seed, STREAM_SAMPLE), rows), 1 << 30)
        return np.asarray(place < wanted / total_rows * (1 << 30))

    def _absorb(
        self,
        padded: list[I64],
        present: list[npt.NDArray[np.bool_]],
        rows: I64,
        label: U64 | None,
    ) -> None:
        ids = np.concatenate(padded, axis=1)
        there = np.concatenate(present, axis=1)
        salts = np.repeat(self._salts, [p.shape[1] for p in padded])
        keys = token_keys(salts, ids)
        if self.config.similarity == "rows":
            elements = np.broadcast_to(mix64(rows)[:, None], keys.shape)
        elif label is None:
            elements = keys
        else:
            state = stream_seed(self.config.seed, STREAM_LABEL)
            elements = combine(combine(state, label)[:, None], keys)
        for code, seed in enumerate(self._seeds):
            minima = self._row_minima(combine(seed, elements), there)
            column = 0
            for name, part, mask in zip(self.tables, padded, present, strict=True):
                width = part.shape[1]
                signed = mask & (part < self.num_signed[name])
                np.minimum.at(
                    self.minima[name][:, code],
                    part[signed],
                    minima[:, column : column + width][signed],
                )
                if code == 0:
                    self.sampled[name] += np.bincount(part[signed], minlength=self.num_signed[name])
                column += width

    def _row_minima(self, hashes: U64, there: npt.NDArray[np.bool_]) -> U64:
        """Smallest element hash that each entry of a row meets, in O(entries) per row.

        For row sets every entry meets the row itself. For contexts an entry meets the other
        entries, so it takes the row's smallest hash, or the second smallest where the smallest
        is its own.
        """
        if self.config.similarity == "rows":
            return hashes
        hashes = np.where(there, hashes, NOTHING)
        if hashes.shape[1] < 2:
            return np.full_like(hashes, NOTHING)
        two = np.partition(hashes, 1, axis=1)[:, :2]
        return np.where(hashes == two[:, :1], two[:, 1:], two[:, :1])

    # --- merge and finish --------------------------------------------------------------------

    def merge(self, other: MinHashBuilder) -> MinHashBuilder:
        """Add what another builder saw; commutative and associative. Returns self."""
        mine = (self.config, self.tables, self.num_signed)
        theirs = (other.config, other.tables, other.num_signed)
        if mine != theirs:
            raise LmaError(f"cannot merge builders of different settings: {mine} and {theirs}")
        for name in self.tables:
            np.minimum(self.minima[name], other.minima[name], out=self.minima[name])
            self.support[name] += other.support[name]
            self.sampled[name] += other.sampled[name]
        self.num_rows += other.num_rows
        return self

    def stats(self) -> LogStats:
        """Support histograms of what was seen so far, for `lma.plan`."""
        return LogStats.of([TableStats.of_supports(n, s) for n, s in self.support.items()])

    def finish(self, num_signed: Mapping[str, int] | None = None) -> SignatureTable:
        """Freeze into a `SignatureTable` with `prefix` indexes.

        Args:
            num_signed: Tokens to keep per table, at most those built. None keeps the leading
                tokens whose support reaches `config.min_support`.
        """
        sections, parts = [], []
        for name, minima in self.minima.items():
            count = len(minima) if num_signed is None else min(num_signed[name], len(minima))
            if num_signed is None:
                low = np.nonzero(self.support[name][:count] < self.config.min_support)[0]
                count = int(low[0]) if len(low) else count
            if not count:
                continue
            codes = self._codes(name, minima[:count])
            parts.append(pack_codes(codes, self.config.code_bits))
            sections.append(
                Section(
                    name,
                    "random",
                    self.config.similarity,
                    self.config.num_codes,
                    self.config.code_bits,
                    count,
                )
            )
        return make_table(sections, parts, self.config.seed, {"rows": self.num_rows})

    def _codes(self, name: str, minima: U64) -> U64:
        """Codes of the winners; a token whose sample is too small hashes its own key instead.

        Such a token shares places by chance alone, as an unsigned one does.
        """
        keys = token_keys(np.uint64(table_salt(name)), np.arange(len(minima)))
        own = combine(self._seeds, keys[:, None])
        seen = self.sampled[name][: len(minima)] >= self.config.min_support
        winner = np.where(seen[:, None] & (minima != NOTHING), minima, own)
        state = stream_seed(self.config.seed, STREAM_CODE)
        return combine(state, winner) >> np.uint64(64 - self.config.code_bits)


def make_table(
    sections: Sequence[Section], parts: Sequence[Any], seed: int, provenance: Mapping[str, Any]
) -> SignatureTable:
    """A `SignatureTable` of packed sections, with the spare bytes behind them."""
    import torch

    padding = torch.zeros(CODE_PADDING, dtype=torch.uint8)
    return SignatureTable(sections, torch.cat([*parts, padding]), seed=seed, provenance=provenance)


def _padded(
    ids: I64, offsets: I64 | None, features: int, batch: int
) -> tuple[list[I64], list[npt.NDArray[np.bool_]]]:
    """Per feature: ids [batch, longest bag] and a mask of the distinct entries that are there."""
    if offsets is None:
        ones = np.ones((batch, 1), np.bool_)
        return [ids[:, f : f + 1] for f in range(features)], [ones] * features
    padded, present = [], []
    lengths = np.diff(offsets).reshape(features, batch)
    for feature in range(features):
        length = lengths[feature]
        width = max(1, int(length.max(initial=0)))
        mask = np.arange(width) < length[:, None]
        out = np.zeros((batch, width), np.int64)
        begin, end = offsets[feature * batch], offsets[(feature + 1) * batch]
        out[mask] = ids[begin:end]
        if width > 1:
            # A value repeated in a row counts once.
            order = np.argsort(np.where(mask, out, np.iinfo(np.int64).max), axis=1, kind="stable")
            out, mask = np.take_along_axis(out, order, 1), np.take_along_axis(mask, order, 1)
            mask[:, 1:] &= out[:, 1:] != out[:, :-1]
        padded.append(out)
        present.append(mask)
    return padded, present


__all__ = ["MinHashBuilder", "make_table"]
