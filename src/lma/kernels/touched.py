"""The fused lookup whose backward touches only what was read: a sparse gradient, or an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lma.kernels import graph_ops, ops
from lma.kernels.define import from_backward
from lma.kernels.lookup import check_lookup, has_tangent
from lma.kernels.rule import Rule


class Touched(NamedTuple):
    """What a backward pass knows of the forward: arguments of `touched_grad`, in their order."""

    starts: Tensor
    offsets: Tensor | None
    factors: Tensor | None
    numbers: Tensor
    columns: Tensor
    modes: Tensor
    layout: Tensor
    chunk: int
    lead: int


Update = Callable[[Tensor, Tensor, Touched], None]


class Traced(NamedTuple):
    """An optimizer as `torch.compile` sees it: arguments of `graph_ops.fused_step`."""

    state: Tensor
    second: Tensor
    settings: Tensor
    kind: int


class _UpdatingLookup(torch.autograd.Function):
    """`ops.lookup`; backward calls `update(weight, grad, touched)` and gives no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        factors: Tensor | None,
        rule: Rule,
        arguments: tuple[Any, ...],
        update: Update,
    ) -> Tensor:
        ids, offsets, numbers, columns, modes, pieces, width = arguments
        out, starts = ops.lookup(
            weight, ids, offsets, factors, numbers, columns, modes, *rule, pieces, width, True
        )
        ctx.save_for_backward(weight, starts, offsets, factors, numbers, columns, modes, rule[0])
        ctx.chunk, ctx.lead, ctx.update = rule.chunk, rule.lead, update
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, starts, offsets, factors, numbers, columns, modes, layout = ctx.saved_tensors
        touched = Touched(
            starts, offsets, factors, numbers, columns, modes, layout, ctx.chunk, ctx.lead
        )
        grad = grad.contiguous()
        own = None
        if factors is not None and ctx.needs_input_grad[1]:
            own = from_backward(
                ops.factors_grad, weight, grad, starts, offsets, numbers, columns, layout,
                ctx.chunk, ctx.lead,
            ).to(factors.dtype)  # fmt: skip
        if ctx.needs_input_grad[0]:
            ctx.update(weight, grad, touched)
        return None, own, None, None, None


def lookup_touched(
    weight: Tensor,
    rule: Rule,
    ids: Tensor,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    pieces: int,
    width: int,
    offsets: Tensor | None = None,
    factors: Tensor | None = None,
    *,
    update: Update | Traced | None = None,
) -> Tensor:
    """`lma.kernels.lookup.lookup`, differentiated block by block, once and in reverse mode only.

    Args:
        weight, rule, ids, numbers, columns, modes, pieces, width, offsets, factors: As there.
        update: Called in the backward pass with (weight, gradient of the output, `Touched`); the
            memory then gets no gradient. `Traced`: an optimizer's step as an op, which
            `torch.compile` can trace. None: its gradient is a coalesced sparse tensor of touched
            blocks, which torch's SGD, Adagrad and SparseAdam take.

    Returns:
        [batch, width].
    """
    check_lookup(weight, rule, ids, numbers, columns, modes, width, offsets, factors)
    if has_tangent(weight, factors):
        raise RuntimeError(
            "lookup_touched: gradients of touched blocks have no forward mode: use the memory's "
            "dense gradient (sparse=False, no FusedOptimizer)"
        )
    arguments = (ids, offsets, factors, numbers, columns, modes, *rule, pieces, width)
    if update is None:
        out, _ = graph_ops.lookup_sparse(weight, *arguments)
    elif isinstance(update, Traced):
        *optimizer, kind = update
        out, _, _ = graph_ops.lookup_updating(weight, *optimizer, *arguments, kind)
    else:
        own = (ids, offsets, numbers, columns, modes, pieces, width)
        out = _UpdatingLookup.apply(weight, factors, rule, own, update)  # type: ignore[no-untyped-call]
    return out  # type: ignore[no-any-return]
