"""What a layout can know of labels: naive Bayes over its groups of tokens, on training rows.

A layout says which tokens share what they learn. That decides how well clicks can be told by
tokens, before any model is trained: estimate the log-odds of a click for every group from most of
the training rows, add them up over the features of the others, and see how those are ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.allocation.base import Allocation
from lma.allocation.frequency_cutoff import FrequencyCutoffAllocation
from lma.allocation.lma import LmaAllocation
from lma.kernels.layout import Column

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

BATCH_ROWS = 65_536
STRIDE = 5  # one row of so many is held out ...
MOST_HELD = 200_000  # ... and of long logs so many in all
PRIOR = 20.0  # rows of the group that a token's own rows are mixed with, and of all in a group's


def judge(log: Any, layouts: Sequence[Allocation]) -> list[float]:
    """How well each layout's groups tell the clicks of training rows that they have not seen.

    Every fifth row (of long logs fewer, 200 thousand in all) is held out; the others give the
    log-odds of every group of tokens, and of every token with floats of its own, mixed with 20
    rows of its group. Held-out rows are scored by the sum over features, a bag by its mean.

    Args:
        log: As `lma.fit_signatures` takes it, with labels of 0 and 1; one pass is made.
        layouts: Of the log's tables, in order: `LmaAllocation` or `FrequencyCutoffAllocation`.
            Codes must have been made without labels, or they know those of the held-out rows.

    Returns:
        AUC of each; 0.5 throughout where the held-out labels are not zeros and ones, both.
    """
    # Here, so that importing lma does not load scikit-learn.
    from sklearn.metrics import roc_auc_score

    features = len(log.schema.features)
    evidence = [[_Evidence(layout, f) for f in range(features)] for layout in layouts]
    stride = max(STRIDE, log.num_rows("train") // MOST_HELD)
    held: list[tuple[list[tuple[I64, I64]], F64]] = []
    seen = 0
    for batch in log.batches("train", BATCH_ROWS):
        labels = np.asarray(batch.labels, np.float64)
        out = (seen + np.arange(len(labels))) % stride == 0
        seen += len(labels)
        kept = []
        for feature, (ids, rows) in enumerate(entries_of(batch, features)):
            for table in evidence:
                table[feature].add(ids[~out[rows]], labels[rows[~out[rows]]])
            kept.append((ids[out[rows]], (np.cumsum(out) - 1)[rows[out[rows]]]))
        held.append((kept, labels[out]))
    clicked = np.concatenate([labels for _, labels in held]) if held else np.zeros(0)
    if not np.array_equal(np.unique(clicked), [0, 1]):
        return [0.5] * len(layouts)
    return [
        float(roc_auc_score(clicked, np.concatenate([_scores(table, *part) for part in held])))
        for table in evidence
    ]


def entries_of(batch: Any, features: int) -> list[tuple[I64, I64]]:
    """(ids, their rows) of every feature of a batch, one-hot [rows, features] or in bags."""
    values, rows = np.asarray(batch.values), len(batch.labels)
    if values.ndim == 2:
        return [(np.ascontiguousarray(values[:, f]), np.arange(rows)) for f in range(features)]
    offsets = np.asarray(batch.offsets)
    found = []
    for first in range(0, features * rows, max(rows, 1)):
        ends = offsets[first : first + rows + 1]
        found.append((values[ends[0] : ends[-1]], np.repeat(np.arange(rows), np.diff(ends))))
    return found


def _scores(table: Sequence[_Evidence], entries: Sequence[tuple[I64, I64]], labels: F64) -> F64:
    total = np.zeros(len(labels))
    for evidence, (ids, rows) in zip(table, entries, strict=True):
        sums = np.bincount(rows, weights=evidence.log_odds(ids), minlength=len(labels))
        total += sums / np.bincount(rows, minlength=len(labels)).clip(min=1)
    return total


class _Evidence:
    """Rows and clicks of one table's groups, and of its tokens with floats of their own."""

    def __init__(self, layout: Allocation, number: int) -> None:
        self.table = layout.tables[number].name
        self.codes, groups = None, 1
        if isinstance(layout, FrequencyCutoffAllocation):
            self.own = int(layout.kept[number])
        elif isinstance(layout, LmaAllocation):
            row = layout.layout[number]
            self.own = int(row[Column.NUM_PRIVATE]) if row[Column.PRIVATE_DIM] else 0
            signatures = layout.signatures
            if self.table in signatures.tables:
                self.codes = signatures
                section = signatures.section(self.table)
                groups = section.num_codes * ((1 << section.code_bits) + 1)
        else:
            raise TypeError(f"judge: no layout of groups: {type(layout).__name__}")
        # Row 0 counts rows, row 1 clicks.
        self.of_groups = np.zeros((2, groups))
        self.of_tokens = np.zeros((2, self.own))

    def groups(self, ids: I64) -> I64:
        """Group by every code, int64 [entries, codes]; tokens without codes have one in common."""
        if self.codes is None:
            return np.zeros((len(ids), 1), np.int64)
        codes: I64 = self.codes.codes_of(self.table, torch.from_numpy(ids)).numpy() + 1
        size = self.of_groups.shape[1] // codes.shape[1]
        return np.asarray(codes + size * np.arange(codes.shape[1]))

    def add(self, ids: I64, labels: F64) -> None:
        """Count entries and the labels of their rows."""
        for groups in self.groups(ids).T:
            self.of_groups[0] += np.bincount(groups, minlength=self.of_groups.shape[1])
            self.of_groups[1] += np.bincount(groups, labels, self.of_groups.shape[1])
        own = (ids >= 0) & (ids < self.own)
        self.of_tokens[0] += np.bincount(ids[own], minlength=self.own)
        self.of_tokens[1] += np.bincount(ids[own], labels[own], self.own)

    def log_odds(self, ids: I64) -> F64:
        """Of a click, relative to the table's average, for every entry."""
        groups = self.groups(ids)
        rows, clicks = self.of_groups.reshape(2, groups.shape[1], -1).sum(axis=2)[:, 0]
        average = (clicks + 0.5) / (rows + 1)
        share = (self.of_groups[1] + PRIOR * average) / (self.of_groups[0] + PRIOR)
        expected = share[groups].mean(axis=1)
        own = (ids >= 0) & (ids < self.own)
        rows, clicks = self.of_tokens[:, ids[own]]
        expected[own] = (clicks + PRIOR * expected[own]) / (rows + PRIOR)
        return np.asarray(_logit(expected) - _logit(average))


def _logit(share: Any) -> Any:
    return np.log(share / (1 - share))


__all__ = ["judge"]
