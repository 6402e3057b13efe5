"""A log of 64-bit ids, in batches of 70 rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from set_oracle import as_batch, random_rows


@dataclass
class Feature:
    name: str
    num_embeddings: int | None


@dataclass
class Batch:
    values: torch.Tensor
    offsets: torch.Tensor | None
    labels: torch.Tensor


class HashedLog:
    """A log whose ids are any 64-bit values, as `lma.data` gives it."""

    def __init__(self, rows, labels, names, ids=None):
        self.rows, self.labels = rows, labels
        self.schema = type("Schema", (), {"features": [Feature(n, None) for n in names]})

    def num_rows(self, split):
        return len(self.rows)

    def batches(self, split, size, start_batch=0):
        for first in range(70 * start_batch, len(self.rows), 70):
            values, offsets = as_batch(self.rows[first : first + 70], len(self.schema.features))
            yield Batch(
                torch.from_numpy(values),
                torch.from_numpy(offsets),
                torch.from_numpy(self.labels[first : first + 70].astype(np.float32)),
            )


def hashed_and_dense(seed=0):
    """One log twice: with dense ids, and with the same tokens under 64-bit ids."""
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 400, (30, 12), (1, 3))
    labels = rng.integers(0, 2, len(rows))
    raw = rng.integers(-(2**63), 2**63, 30)
    hashed = [[[int(raw[v]) for v in bag] for bag in row] for row in rows]
    return rows, hashed, labels, raw
