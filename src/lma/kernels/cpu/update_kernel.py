"""The optimizer applied bucket by bucket: gradients summed per block, then one update per block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lma.kernels.cpu.mix import inlined, kernel
from lma.kernels.cpu.prefetch import prefetch
from lma.kernels.cpu.runs import copy_inside
from lma.kernels.cpu.touch_kernel import add_touch, source_of, unit_of
from lma.kernels.update import UpdateKind

_SGD, _ADAGRAD = int(UpdateKind.SGD), int(UpdateKind.ADAGRAD)
_BLOCK_ADAGRAD = int(UpdateKind.BLOCK_ADAGRAD)
_1, _2, _3, _4, _8, _12 = (np.uint64(i) for i in (1, 2, 3, 4, 8, 12))
_ONE = np.float32(1)
AHEAD = 16  # touches whose gradients are asked for early


@inlined
def adagrad_4(weight: Any, state: Any, p: Any, values: Any, q: Any, lr: Any, eps: Any) -> Any:
    """Adagrad of four floats, written out so that it becomes vector instructions."""
    a, b, c, d = values[q], values[q + _1], values[q + _2], values[q + _3]
    sa, sb = state[p] + a * a, state[p + _1] + b * b
    sc, sd = state[p + _2] + c * c, state[p + _3] + d * d
    wa = weight[p] - lr * (a / (np.float32(math.sqrt(sa)) + eps))
    wb = weight[p + _1] - lr * (b / (np.float32(math.sqrt(sb)) + eps))
    wc = weight[p + _2] - lr * (c / (np.float32(math.sqrt(sc)) + eps))
    wd = weight[p + _3] - lr * (d / (np.float32(math.sqrt(sd)) + eps))
    state[p] = sa
    state[p + _1] = sb
    state[p + _2] = sc
    state[p + _3] = sd
    weight[p] = wa
    weight[p + _1] = wb
    weight[p + _2] = wc
    weight[p + _3] = wd


@inlined
def subtract_4(weight: Any, p: Any, values: Any, q: Any, rate: Any) -> Any:
    """weight[p + i] -= rate * values[q + i] for four floats."""
    a, b = weight[p] - rate * values[q], weight[p + _1] - rate * values[q + _1]
    c, d = weight[p + _2] - rate * values[q + _2], weight[p + _3] - rate * values[q + _3]
    weight[p] = a
    weight[p + _1] = b
    weight[p + _2] = c
    weight[p + _3] = d


@inlined
def subtract(weight: Any, p: Any, values: Any, q: Any, unit: Any, rate: Any) -> Any:
    """weight[p + i] -= rate * values[q + i] for a block."""
    if unit == 4:
        subtract_4(weight, p, values, q, rate)
    elif unit == 8:
        subtract_4(weight, p, values, q, rate)
        subtract_4(weight, p + _4, values, q + _4, rate)
    elif unit == 16:
        subtract_4(weight, p, values, q, rate)
        subtract_4(weight, p + _4, values, q + _4, rate)
        subtract_4(weight, p + _8, values, q + _8, rate)
        subtract_4(weight, p + _12, values, q + _12, rate)
    else:
        for i in range(unit):
            weight[p + np.uint64(i)] -= rate * values[q + np.uint64(i)]


@inlined
def adagrad(
    weight: Any, state: Any, p: Any, values: Any, q: Any, unit: Any, lr: Any, eps: Any
) -> Any:  # fmt: skip
    """Adagrad of a block."""
    if unit == 4:
        adagrad_4(weight, state, p, values, q, lr, eps)
    elif unit == 8:
        adagrad_4(weight, state, p, values, q, lr, eps)
        adagrad_4(weight, state, p + _4, values, q + _4, lr, eps)
    elif unit == 16:
        adagrad_4(weight, state, p, values, q, lr, eps)
        adagrad_4(weight, state, p + _4, values, q + _4, lr, eps)
        adagrad_4(weight, state, p + _8, values, q + _8, lr, eps)
        adagrad_4(weight, state, p + _12, values, q + _12, lr, eps)
    else:
        for i in range(unit):
            at, g = p + np.uint64(i), values[q + np.uint64(i)]
            s = state[at] + g * g
            state[at] = s
            weight[at] -= lr * (g / (np.float32(math.sqrt(s)) + eps))


@inlined
def update_block(
    kind: Any, weight: Any, state: Any, second: Any, u: Any, unit: Any, values: Any, row: Any,
    lr: Any, eps: Any, beta1: Any, beta2: Any,
) -> Any:  # fmt: skip
    """One block's step; all numbers float32, all arrays flat."""
    p, q = np.uint64(u) * np.uint64(unit), np.uint64(row) * np.uint64(unit)
    if kind == _SGD:
        subtract(weight, p, values, q, unit, lr)
    elif kind == _ADAGRAD:
        adagrad(weight, state, p, values, q, unit, lr, eps)
    elif kind == _BLOCK_ADAGRAD:
        total = np.float32(0)
        for i in range(unit):
            g = values[q + np.uint64(i)]
            total += g * g
        s = state[np.uint64(u)] + total / np.float32(unit)
        state[np.uint64(u)] = s
        rate = lr / (np.float32(math.sqrt(s)) + eps)
        subtract(weight, p, values, q, unit, rate)
    else:
        for i in range(unit):
            at, g = p + np.uint64(i), values[q + np.uint64(i)]
            m = state[at] + (g - state[at]) * (_ONE - beta1)
            v = second[at] + (g * g - second[at]) * (_ONE - beta2)
            state[at] = m
            second[at] = v
            weight[at] -= lr * (m / (np.float32(math.sqrt(v)) + eps))


@inlined
def update_bucket(
    kind: Any, weight: Any, state: Any, second: Any, lr: Any, eps: Any, beta1: Any, beta2: Any,
    grad: Any, unit: Any, touches: Any, factors: Any, lengths: Any, first: Any, last: Any,
    base: Any, seen: Any, values: Any, found: Any,
) -> Any:  # fmt: skip
    """Sum and apply the gradients of touches first ... last - 1, of units from `base` on."""
    count = np.uint64(0)
    size = np.uint64(unit)
    whole = factors.shape[0] == 0 and lengths.shape[0] == 0
    per_unit = size if state.shape[0] == weight.shape[0] else _1
    for at in range(first, last):
        # What the next touches and this bucket's updates will read is on its way meanwhile.
        prefetch(grad, np.int64(source_of(touches[np.uint64(min(at + AHEAD, last - 1))])))
        u = unit_of(touches[np.uint64(at)])
        row = seen[u - base]
        if row < 0:
            seen[u - base] = count
            found[count] = u
            prefetch(weight, np.int64(u * size))
            if state.shape[0] > 0:
                prefetch(state, np.int64(u * per_unit))
            if second.shape[0] > 0:
                prefetch(second, np.int64(u * size))
            q = count * size
            row = np.int64(count)
            count += _1
            if whole:
                copy_inside(grad, source_of(touches[np.uint64(at)]), unit, values, q)
                continue
            for i in range(unit):
                values[q + np.uint64(i)] = 0
        add_touch(grad, unit, touches, factors, lengths, at, values, row)
    for i in range(np.int64(count)):
        u = np.uint64(found[np.uint64(i)])
        seen[u - base] = -1
        update_block(kind, weight, state, second, u, unit, values, i, lr, eps, beta1, beta2)


@kernel
def update_buckets(
    kind: Any, weight: Any, state: Any, second: Any, lr: Any, eps: Any, beta1: Any, beta2: Any,
    grad: Any, unit: Any, touches: Any, factors: Any, lengths: Any, bounds: Any, shift: Any,
    seen: Any, values: Any, found: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Sum and apply the gradients of buckets first ... last - 1.

    Args:
        kind: An `UpdateKind`.
        weight: float32 [floats], changed.
        state, second: The optimizer's state, float32, changed; empty where it has none.
        lr, eps, beta1, beta2: float32; the rate as corrected for this step.
        grad, touches, factors, lengths: Of `place_touches`.
        seen: Scratch, int32 [1 << shift], -1 everywhere before and after.
        values: Scratch, float32 [most distinct units of a bucket * unit].
        found: Scratch, int32 [most distinct units of a bucket].
    """
    fixed = weight, state, second, lr, eps, beta1, beta2, grad
    rest = touches, factors, lengths
    for b in range(first, last):
        base, begin, end = np.uint64(b) << np.uint64(shift), bounds[b], bounds[b + 1]
        scratch = base, seen, values, found
        # The usual sizes as constants, for the compiler to write the inner loops out.
        if unit == 1:
            update_bucket(kind, *fixed, 1, *rest, begin, end, *scratch)
        elif unit == 4:
            update_bucket(kind, *fixed, 4, *rest, begin, end, *scratch)
        elif unit == 8:
            update_bucket(kind, *fixed, 8, *rest, begin, end, *scratch)
        elif unit == 16:
            update_bucket(kind, *fixed, 16, *rest, begin, end, *scratch)
        else:
            update_bucket(kind, *fixed, unit, *rest, begin, end, *scratch)
