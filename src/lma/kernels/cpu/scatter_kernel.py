"""The fused lookup's backward: every slot's gradient added to the floats that it read."""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.address_kernel import CHUNKS, DIM, PRIVATE_DIM
from lma.kernels.cpu.gather_kernel import MEAN
from lma.kernels.cpu.mix import kernel
from lma.kernels.cpu.runs import scatter_run


@kernel
def scatter_range(
    grad: Any, width: Any, starts: Any, offsets: Any, factors: Any, numbers: Any, columns: Any,
    modes: Any, rows: Any, unit: Any, chunk: Any, lead: Any, out: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Add the gradients of slots first ... last - 1 to `out`, float32 [floats].

    Args:
        grad: Gradient of the output, float32 [batch * width].
        starts: int32 [entries, pieces], as the forward wrote them.
        offsets, factors, numbers, columns, modes, rows, unit, chunk, lead: As in `lookup_range`.
    """
    features = numbers.shape[0]
    one_hot = offsets.shape[0] == 0
    weighted = factors.shape[0] > 0
    batch = 0 if one_hot else (offsets.shape[0] - 1) // features
    r = first // features
    f = first - r * features
    for s in range(first, last):
        t = numbers[f]
        begin = r * width + columns[f]
        stop = begin + rows[t, DIM]
        private = rows[t, PRIVATE_DIM]
        chunks = rows[t, CHUNKS]
        low, high = s, s + 1
        if not one_hot:
            low, high = offsets[f * batch + r], offsets[f * batch + r + 1]
        share = np.float32(1)
        if modes[f] == MEAN and high > low:
            share = np.float32(1) / np.float32(high - low)
        for e in range(low, high):
            factor = factors[e] * share if weighted else share
            place = begin
            if private > 0:
                start = np.int64(starts[e, 0]) * unit
                scatter_run(factor, grad, place, private, out, start)
                place += private
            if chunk == 1:
                first_column = np.uint64(place)
                for j in range(chunks):
                    start = np.uint64(starts[e, lead + j]) * np.uint64(unit)
                    out[start] += factor * grad[first_column + np.uint64(j)]
            else:
                for j in range(chunks):
                    start = np.int64(starts[e, lead + j]) * unit
                    scatter_run(factor, grad, place, min(chunk, stop - place), out, start)
                    place += chunk
        f += 1
        if f == features:
            f = 0
            r += 1


@kernel
def sum_shards(shards: Any, out: Any, first: Any, last: Any) -> Any:
    """out[i] = shards[0, i] + shards[1, i] + ..., in that order, for i in [first, last)."""
    for i in range(first, last):
        out[i] = shards[0, i]
    for k in range(1, shards.shape[0]):
        for i in range(first, last):
            out[i] += shards[k, i]


@kernel
def dot_range(
    weight: Any, grad: Any, width: Any, starts: Any, offsets: Any, numbers: Any, columns: Any,
    rows: Any, unit: Any, chunk: Any, lead: Any, out: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Gradient of per-entry factors: every entry's vector times its slot's gradient."""
    features = numbers.shape[0]
    one_hot = offsets.shape[0] == 0
    batch = 0 if one_hot else (offsets.shape[0] - 1) // features
    size = weight.shape[0]
    for s in range(first, last):
        r = s // features
        f = s - r * features
        t = numbers[f]
        begin = r * width + columns[f]
        private = rows[t, PRIVATE_DIM]
        low, high = s, s + 1
        if not one_hot:
            low, high = offsets[f * batch + r], offsets[f * batch + r + 1]
        for e in range(low, high):
            total = np.float32(0)
            for i in range(rows[t, DIM]):
                if i < private:
                    start = np.int64(starts[e, 0]) * unit + i
                else:
                    j = (i - private) // chunk
                    inside = (i - private) - j * chunk
                    start = np.int64(starts[e, lead + j]) * unit + inside
                total += weight[start if start < size else start % size] * grad[begin + i]
            out[e] = total
