"""The optimizer applied bucket by bucket: gradients summed per block, then one update per block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lma.kernels.cpu.mix import inlined, kernel
from lma.kernels.cpu.touch_kernel import add_touch
from lma.kernels.update import UpdateKind

_SGD, _ADAGRAD = int(UpdateKind.SGD), int(UpdateKind.ADAGRAD)
_BLOCK_ADAGRAD = int(UpdateKind.BLOCK_ADAGRAD)
_ONE = np.float32(1)


@inlined
def update_block(
    kind: Any, weight: Any, state: Any, second: Any, u: Any, unit: Any, values: Any, row: Any,
    lr: Any, eps: Any, beta1: Any, beta2: Any,
) -> Any:  # fmt: skip
    """One block's step; all numbers float32, `state` and `second` flat."""
    begin = u * unit
    if kind == _SGD:
        for i in range(unit):
            weight[begin + i] -= lr * values[row, i]
    elif kind == _ADAGRAD:
        for i in range(unit):
            g = values[row, i]
            s = state[begin + i] + g * g
            state[begin + i] = s
            weight[begin + i] -= lr * (g / (np.float32(math.sqrt(s)) + eps))
    elif kind == _BLOCK_ADAGRAD:
        total = np.float32(0)
        for i in range(unit):
            total += values[row, i] * values[row, i]
        s = state[u] + total / np.float32(unit)
        state[u] = s
        rate = lr / (np.float32(math.sqrt(s)) + eps)
        for i in range(unit):
            weight[begin + i] -= rate * values[row, i]
    else:
        for i in range(unit):
            g = values[row, i]
            m = state[begin + i] + (g - state[begin + i]) * (_ONE - beta1)
            v = second[begin + i] + (g * g - second[begin + i]) * (_ONE - beta2)
            state[begin + i] = m
            second[begin + i] = v
            weight[begin + i] -= lr * (m / (np.float32(math.sqrt(v)) + eps))


@kernel
def update_buckets(
    kind: Any, weight: Any, state: Any, second: Any, lr: Any, eps: Any, beta1: Any, beta2: Any,
    grad: Any, places: Any, scales: Any, tables: Any, rows: Any, unit: Any, most: Any, units: Any,
    touches: Any, bounds: Any, shift: Any, seen: Any, values: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Sum and apply the gradients of buckets first ... last - 1.

    Args:
        kind: An `UpdateKind`.
        weight: float32 [floats], changed.
        state, second: The optimizer's state, float32, changed; empty where it has none.
        lr, eps, beta1, beta2: float32; the rate as corrected for this step.
        seen: Scratch, int32 [1 << shift], -1 everywhere before and after.
        values: Scratch, float32 [most distinct units of a bucket, unit].
    """
    for b in range(first, last):
        base = b << shift
        count = 0
        for at in range(bounds[b], bounds[b + 1]):
            local = units[at] - base
            row = seen[local]
            if row < 0:
                row = count
                count += 1
                seen[local] = row
                for i in range(unit):
                    values[row, i] = 0
            add_touch(
                grad, places, scales, tables, rows, unit, most, touches[at], values, row
            )  # fmt: skip
        for at in range(bounds[b], bounds[b + 1]):
            local = units[at] - base
            row = seen[local]
            if row >= 0:
                seen[local] = -1
                update_block(
                    kind, weight, state, second, np.int64(units[at]), unit, values, row, lr, eps,
                    beta1, beta2,
                )  # fmt: skip
