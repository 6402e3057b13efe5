"""Optimizers on touched blocks on a GPU: gradient, state and weights are read and written once."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton evaluates annotations, and knows none but its own.

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lma.kernels.gpu.segment_kernel import Sums
from lma.kernels.update import UpdateKind

_SGD, _ADAGRAD = tl.constexpr(int(UpdateKind.SGD)), tl.constexpr(int(UpdateKind.ADAGRAD))
_BLOCK_ADAGRAD = tl.constexpr(int(UpdateKind.BLOCK_ADAGRAD))
FLOATS = 1024  # of one program's tile


@triton.jit(do_not_specialize=["count"])
def update_kernel(
    weight, state, second, rows, values, first, count, lr, eps, new1, new2,
    KIND: tl.constexpr, PARTS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """ROWS of the touched blocks; formulas in `UpdateKind`, Adam's moments in `state`, `second`.

    new1, new2: 1 - beta1 and 1 - beta2, which lose digits when taken in 32 bits.
    PARTS: the gradient of touched block s is row first[s] of `values`, else row s.
    """
    s = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    some = s < count
    lane = tl.arange(0, BLOCK)[None, :]
    mask = some[:, None] & (lane < UNIT)
    row = tl.load(rows + s, mask=some, other=0)
    at = row[:, None] * UNIT + lane
    own = s
    if PARTS:
        own = tl.load(first + s, mask=some, other=0)
    g = tl.load(values + own[:, None] * UNIT + lane, mask=mask, other=0).to(tl.float32)
    if KIND == _SGD:
        step = g
    elif KIND == _ADAGRAD:
        sums = tl.load(state + at, mask=mask, other=0) + g * g
        tl.store(state + at, sums, mask=mask)
        step = g / (tl.sqrt_rn(sums) + eps)
    elif KIND == _BLOCK_ADAGRAD:
        means = tl.load(state + row, mask=some, other=0) + tl.sum(g * g, 1) / UNIT
        tl.store(state + row, means, mask=some)
        step = g / (tl.sqrt_rn(means) + eps)[:, None]
    else:
        mean = tl.load(state + at, mask=mask, other=0)
        mean += (g - mean) * new1
        squares = tl.load(second + at, mask=mask, other=0)
        squares += (g * g - squares) * new2
        tl.store(state + at, mean, mask=mask)
        tl.store(second + at, squares, mask=mask)
        step = mean / (tl.sqrt_rn(squares) + eps)
    old = tl.load(weight + at, mask=mask, other=0)
    tl.store(weight + at, old - lr * step, mask=mask)


def updated(
    weight: Tensor,
    state: Tensor,
    second: Tensor,
    sums: Sums,
    kind: int,
    lr: float,
    eps: float,
    beta1: float,
    beta2: float,
) -> None:
    """`reference.touched.apply_update` of contiguous float32 weights and state."""
    rows, values, first = sums
    if not len(rows):
        return
    unit = weight.shape[1]
    block = int(triton.next_power_of_2(unit))
    own = max(1, FLOATS // block)
    update_kernel[(triton.cdiv(len(rows), own),)](
        weight, state, second, rows, values, rows if first is None else first, len(rows), lr, eps,
        1 - beta1, 1 - beta2, KIND=kind, PARTS=first is not None, UNIT=unit, ROWS=own, BLOCK=block,
    )  # fmt: skip
