"""Lookups whose backward is one op too, so that `torch.compile` makes one graph of both.

The ops of `kernels.ops` behind the autograd of touched blocks: a sparse gradient
(`lookup_sparse`), or an update in the backward pass (`lookup_updating`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lma.kernels import ops
from lma.kernels.define import BAGS, RULE, define, derivative, fake, from_backward
from lma.kernels.update import UpdateKind

_TOUCHED = f"Tensor starts, {BAGS}, Tensor layout, int chunk, int lead"
_LOOKUP = f"Tensor ids, {BAGS}, {RULE}, int chunk, int stride, int lead, int pieces, int width"
LR, EPS, BETA_1, BETA_2, STEPS = range(5)  # places in `settings`, float64 [5] on the CPU


# --- the gradient of touched blocks as one sparse tensor ------------------------------------


def _sparse_grad(grad: Tensor, *args: Any) -> Tensor:
    """`touched_grad` as a sparse tensor [num_blocks, block_size] of distinct ascending blocks."""
    blocks, values = ops.touched_grad(grad, *args)
    return _as_sparse(blocks, values, args[-2:])


def _as_sparse(blocks: Tensor, values: Tensor, shape: Any) -> Tensor:
    # Blocks ascend and lie in the memory by construction.
    return torch.sparse_coo_tensor(
        blocks.unsqueeze(0), values, tuple(shape), is_coalesced=True, check_invariants=False
    )


sparse_grad = define(
    "sparse_grad",
    f"(Tensor grad, {_TOUCHED}, int num_blocks, int block_size) -> Tensor",
    _sparse_grad,
)


@fake(sparse_grad)  # type: ignore[untyped-decorator]
def _sparse_grad_fake(grad: Tensor, starts: Tensor, *args: Any) -> Tensor:
    # How many blocks are touched shows at run time; tracing is content with the most there can be.
    most = starts.shape[0] * starts.shape[1]
    blocks = grad.new_empty(most, dtype=torch.int64)
    return _as_sparse(blocks, grad.new_empty(most, args[-1]), args[-2:])


derivative(sparse_grad, ops.not_twice)


# --- the optimizer's step, its settings in a tensor -----------------------------------------


def check_alone() -> None:
    """`RuntimeError` where other processes train copies of the same weights."""
    distributed = torch.distributed
    if (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    ):
        raise RuntimeError(
            "FusedOptimizer: every process would update its own copy before gradients are "
            "averaged; use torch's optimizers on the memory's dense gradient"
        )


def _fused_step(
    weight: Tensor, state: Tensor, second: Tensor, settings: Tensor, grad: Tensor, *args: Any
) -> None:
    """`fused_update` as step number settings[STEPS] + 1, with Adam's rate corrected for it.

    `begun`, the last argument: settings[STEPS] as the forward pass found it, None: not checked.
    """
    *touched, kind, begun = args
    check_alone()
    if begun is not None and float(begun) != float(settings[STEPS]):
        raise RuntimeError(
            "FusedOptimizer: two lookups waited for their backward pass at once, and the first "
            "may have updated the memory. Look all features up by one EmbeddingBagCollection"
        )
    settings[STEPS] += 1
    lr, eps, first, squares, steps = settings.tolist()
    if kind == UpdateKind.ADAM:
        lr *= (1 - squares**steps) ** 0.5 / (1 - first**steps)
    ops.fused_update(weight, state, second, grad, *touched, kind, lr, eps, first, squares)


fused_step = define(
    "fused_step",
    "(Tensor(a!) weight, Tensor(b!) state, Tensor(c!) second, Tensor(d!) settings, Tensor grad, "
    f"{_TOUCHED}, int kind, Tensor? begun) -> ()",
    _fused_step,
)


@fake(fused_step)  # type: ignore[untyped-decorator]
def _fused_step_fake(*args: Any) -> None:
    return None


# --- lookups with these in their backward pass ----------------------------------------------


def _lookup_sparse(weight: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    return ops.lookup(weight, *args, True)  # type: ignore[no-any-return]


def _lookup_updating(
    weight: Tensor, state: Tensor, second: Tensor, settings: Tensor, *args: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Also how many steps had been made: another before this lookup's own is one too many."""
    return *ops.lookup(weight, *args[:-1], True), settings[STEPS].clone()


lookup_sparse = define(
    "lookup_sparse", f"(Tensor weight, {_LOOKUP}) -> (Tensor, Tensor)", _lookup_sparse
)
lookup_updating = define(
    "lookup_updating",
    f"(Tensor weight, Tensor state, Tensor second, Tensor settings, {_LOOKUP}, int kind) "
    "-> (Tensor, Tensor, Tensor)",
    _lookup_updating,
)


@fake(lookup_sparse)  # type: ignore[untyped-decorator]
def _lookup_sparse_fake(
    weight: Tensor, ids: Tensor, offsets: Tensor | None, factors: Any, numbers: Tensor, *args: Any
) -> tuple[Tensor, Tensor]:
    pieces, width = args[-2:]
    slots = ids.shape[0] if offsets is None else offsets.shape[0] - 1
    starts = ids.new_empty(ids.shape[0], pieces, dtype=torch.int32)
    return weight.new_empty(slots // numbers.shape[0], width), starts


@fake(lookup_updating)  # type: ignore[untyped-decorator]
def _lookup_updating_fake(
    weight: Tensor, state: Tensor, second: Tensor, settings: Tensor, *args: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return *_lookup_sparse_fake(weight, *args[:-1]), settings.new_empty(())


def _remember(ctx: Any, weight: Tensor, rest: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    """Keep what both backward passes read; `rest` are the arguments of `_LOOKUP`."""
    _, offsets, factors, numbers, columns, modes, layout = rest[:7]
    chunk, _, lead, _, _ = rest[-5:]
    ctx.mark_non_differentiable(*output[1:])
    ctx.chunk, ctx.lead, ctx.count = chunk, lead, len(rest)
    ctx.save_for_backward(weight, output[1], offsets, factors, numbers, columns, modes, layout)


def _factors_grad(ctx: Any, grad: Tensor, wanted: bool) -> Tensor | None:
    weight, starts, offsets, factors, numbers, columns, _, layout = ctx.saved_tensors
    if factors is None or not wanted:
        return None
    own = from_backward(
        ops.factors_grad, weight, grad, starts, offsets, numbers, columns, layout, ctx.chunk,
        ctx.lead,
    )  # fmt: skip
    return own.to(factors.dtype)  # type: ignore[no-any-return]


def _remember_sparse(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _remember(ctx, inputs[0], inputs[1:], output)


def _backward_sparse(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    weight, *touched = ctx.saved_tensors
    grads: list[Any] = [None] * (1 + ctx.count)
    grad = grad.contiguous()
    if ctx.needs_input_grad[0]:
        grads[0] = from_backward(sparse_grad, grad, *touched, ctx.chunk, ctx.lead, *weight.shape)
    grads[3] = _factors_grad(ctx, grad, ctx.needs_input_grad[3])
    return tuple(grads)


def _remember_updating(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    weight, *ctx.optimizer = inputs[:4]
    ctx.kind, ctx.begun = inputs[-1], output[2]
    _remember(ctx, weight, inputs[4:-1], output)


def _backward_updating(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    weight, *touched = ctx.saved_tensors
    grads: list[Any] = [None] * (5 + ctx.count)
    grad = grad.contiguous()
    # Before the update: it is the gradient at the weights that the forward pass read.
    grads[6] = _factors_grad(ctx, grad, ctx.needs_input_grad[6])
    if ctx.needs_input_grad[0]:
        place = ctx.chunk, ctx.lead, ctx.kind
        fused_step(weight, *ctx.optimizer, grad, *touched, *place, ctx.begun)
    return tuple(grads)


derivative(lookup_sparse, _backward_sparse, _remember_sparse)
derivative(lookup_updating, _backward_updating, _remember_updating)
