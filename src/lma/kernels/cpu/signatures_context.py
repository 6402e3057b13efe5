"""Numba twin of `reference.context_vectors`, adding straight into the tokens' sums.

Sums are integers: what a row adds is rounded to its token's own power of two, so they come out the
same, bit for bit, in any order of adding: for any number of threads, sizes of batches and share of
the rows among processes. Two threads never add to one token: each owns the slots of one remainder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.kernels.cpu import mix
from lma.kernels.cpu.threads import run_pieces

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int8]
F32 = npt.NDArray[np.float32]

CHUNK_ROWS = 4096  # rows whose totals are held at a time; they stay in cache
MOST_PARTS = 4
# 2^exponent for exponents of -128 to 127.
POWERS = np.ldexp(np.float64(1), np.arange(-128, 128)).astype(np.float32)

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
def _add(  # type: ignore[no-untyped-def]
    part, parts, offsets, slots, base, rows, vectors, means, targets, total, weighted,
    exponents, powers, wide, narrow,
):  # fmt: skip
    labelled = len(means) > 0
    dim = vectors.shape[1]
    heavy = wide.shape[0]
    for r in range(len(rows)):
        for entry in range(offsets[rows[r]], offsets[rows[r] + 1]):
            slot = slots[entry]
            if slot < 0 or slot % parts != part:
                continue
            own = slot - base
            power = powers[exponents[own] + 128]
            mean, weight = np.float32(0), np.float32(1)
            if labelled:
                mean = means[slot]
                weight = targets[rows[r]] - mean
            if own < heavy:
                for d in range(dim):
                    q = vectors[slot, d]
                    added = weight * (total[r, d] - q) - (weighted[r, d] - mean * q)
                    wide[own, d] += np.int64(np.rint(added * power))
            else:
                low = own - heavy
                for d in range(dim):
                    q = vectors[slot, d]
                    added = weight * (total[r, d] - q) - (weighted[r, d] - mean * q)
                    narrow[low, d] += np.int32(np.rint(added * power))


def add_contexts(
    offsets: I64,
    slots: I64,
    rows: I64,
    bases: list[int],
    vectors: F32,
    means: F32 | None,
    targets: F32,
    sums: list[tuple[I8, I64, I32]],
) -> None:
    """Adds `reference.context_vectors.context_sums` of every entry with a slot to its token's sum.

    Args:
        offsets: Where bag b of feature f begins, at f * batch + b; int64 [features * batch + 1].
        slots: Of every entry's token, -1 for tokens that neither have nor give a context.
        rows: Positions in the batch of the rows to use, int64 [n].
        bases: First slot of every feature's tokens.
        vectors: q of every slot, [slots, dim].
        means: m of every slot, [slots]; None: no labels.
        targets: y of every row of the batch, [batch].
        sums: Per feature, of its tokens: the exponents e [tokens], and the sums as multiples of
            2^-e, int64 [h, dim] of the first h tokens and int32 [tokens - h, dim] of the others;
            changed in place.
    """
    num_features = len(bases)
    batch = (len(offsets) - 1) // max(num_features, 1)
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
                    exponents, wide, narrow = sums[feature]
                    _add(
                        part, parts, bags, slots, bases[feature], chosen, vectors, m, targets,
                        total, weighted, exponents, POWERS, wide, narrow,
                    )  # fmt: skip

        run_pieces(totals, len(chosen), max(1, min(threads, len(chosen) // 64)))
        run_pieces(add, threads, threads)


__all__ = ["add_contexts"]
