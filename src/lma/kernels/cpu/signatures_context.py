"""Numba twin of `reference.context_vectors`, adding straight into the tokens' sums.

A thread owns the tokens whose slots have its remainder and takes rows in their order, so float
sums come out the same, bit for bit, for any number of threads and any size of batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.kernels.cpu import mix
from lma.kernels.cpu.threads import run_pieces

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

CHUNK_ROWS = 4096  # rows whose totals are held at a time; they stay in cache
MOST_PARTS = 4

kernel: Any = mix.kernel  # typed so, its kernels are called without complaint


@kernel
def _row_totals(begin, end, features, batch, offsets, slots, rows, vectors, means, total, weighted):  # type: ignore[no-untyped-def]
    labelled = len(means) > 0
    dim = vectors.shape[1]
    for r in range(begin, end):
        for d in range(dim):
            total[r, d] = 0
            weighted[r, d] = 0
        for feature in range(features):
            bag = feature * batch + rows[r]
            for entry in range(offsets[bag], offsets[bag + 1]):
                slot = slots[entry]
                if slot < 0:
                    continue
                if labelled:
                    mean = means[slot]
                    for d in range(dim):
                        total[r, d] += vectors[slot, d]
                        weighted[r, d] += mean * vectors[slot, d]
                else:
                    for d in range(dim):
                        total[r, d] += vectors[slot, d]


@kernel
def _add(part, parts, offsets, slots, rows, vectors, means, targets, total, weighted, sums):  # type: ignore[no-untyped-def]
    labelled = len(means) > 0
    dim = vectors.shape[1]
    for r in range(len(rows)):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            slot = slots[entry]
            if slot < 0 or slot % parts != part:
                continue
            if labelled:
                mean = means[slot]
                weight = targets[rows[r]] - mean
                for d in range(dim):
                    own = vectors[slot, d]
                    sums[slot, d] += weight * (total[r, d] - own) - (weighted[r, d] - mean * own)
            else:
                for d in range(dim):
                    sums[slot, d] += total[r, d] - vectors[slot, d]


def add_contexts(
    offsets: I64,
    slots: I64,
    rows: I64,
    num_features: int,
    vectors: F32,
    means: F32 | None,
    targets: F32,
    sums: F32,
) -> None:
    """sums[slot] += `reference.context_vectors.context_sums` of every entry with a slot.

    Args:
        offsets: Where bag b of feature f begins, at f * batch + b; int64 [features * batch + 1].
        slots: Of every entry's token, -1 for tokens that neither have nor give a context.
        rows: Positions in the batch of the rows to use, int64 [n].
        num_features: Features.
        vectors: q of every slot, [slots, dim].
        means: m of every slot, [slots]; None: no labels.
        targets: y of every row of the batch, [batch].
        sums: [slots, dim]; changed in place.
    """
    batch = (len(offsets) - 1) // num_features
    m = np.empty(0, np.float32) if means is None else means
    shape = (min(len(rows), CHUNK_ROWS), vectors.shape[1])
    total, weighted = np.empty(shape, np.float32), np.empty(shape, np.float32)
    threads = torch.get_num_threads()
    parts = min(threads, MOST_PARTS)
    tasks = [(feature, part) for feature in range(num_features) for part in range(parts)]
    for start in range(0, len(rows), CHUNK_ROWS):
        chosen = rows[start : start + CHUNK_ROWS]

        def totals(begin: int, end: int, chosen: I64 = chosen) -> None:
            _row_totals(
                begin, end, num_features, batch, offsets, slots, chosen, vectors, m, total,
                weighted,
            )  # fmt: skip

        def add(begin: int, end: int, chosen: I64 = chosen) -> None:
            for thread in range(begin, end):
                for feature, part in tasks[thread::threads]:
                    bags = offsets[feature * batch : (feature + 1) * batch + 1]
                    _add(
                        part, parts, bags, slots, chosen, vectors, m, targets, total, weighted,
                        sums,
                    )  # fmt: skip

        run_pieces(totals, len(chosen), max(1, min(threads, len(chosen) // 64)))
        run_pieces(add, threads, threads)


__all__ = ["add_contexts"]
