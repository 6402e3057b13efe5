"""The ops: schema, shapes, autograd; PyTorch picks the backend by the tensors' device.

Every op is `torch.ops.lma.<name>`. The default implementation is `reference`, which runs on any
device and is what exporters see; on the CPU it is Numba (`kernels.cpu`) and on GPUs Triton
(`kernels.gpu`), imported at the first call. Arguments are checked by the functions of
`kernels.lookup`, not here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import library as op_library

from lma.kernels.define import (
    BAGS,
    RULE,
    define,
    derivative,
    fake,
    from_backward,
    gpu_kernel,
    kernel,
)
from lma.kernels.reference import inputs, quantised, touched
from lma.kernels.reference import lookup as reference

# --- inputs -------------------------------------------------------------------------------

accept_ids = define(
    "accept_ids",
    "(Tensor ids, Tensor numbers, Tensor sizes, int policy, bool check, str names) -> Tensor",
    inputs.accept_ids,
)


@kernel(accept_ids, "cpu")  # type: ignore[untyped-decorator]
def _accept_ids_cpu(*args: Any) -> Tensor:
    from lma.kernels.cpu import accept as cpu

    return cpu.accept_ids(*args)


@fake(accept_ids)  # type: ignore[untyped-decorator]
def _accept_ids_fake(ids: Tensor, *args: Any) -> Tensor:
    return torch.empty_like(ids, memory_format=torch.contiguous_format)


accept_offsets = define(
    "accept_offsets",
    "(Tensor offsets, SymInt total, str argument) -> Tensor",
    inputs.accept_offsets,
)


@fake(accept_offsets)  # type: ignore[untyped-decorator]
def _accept_offsets_fake(offsets: Tensor, total: int, argument: str) -> Tensor:
    return offsets.new_empty(offsets.shape, dtype=torch.int64)


# --- starts -------------------------------------------------------------------------------

starts = define(
    "starts",
    f"(Tensor ids, Tensor numbers, {RULE}, int unit, int chunk, int stride, int lead, "
    "int pieces) -> Tensor",
    reference.starts,
)


@kernel(starts, "cpu")  # type: ignore[untyped-decorator]
def _starts_cpu(*args: Any) -> Tensor:
    from lma.kernels.cpu import lookup as cpu

    return cpu.starts(*args)


@fake(starts)  # type: ignore[untyped-decorator]
def _starts_fake(ids: Tensor, *args: Any) -> Tensor:
    return ids.new_empty(ids.shape[0], args[-1], dtype=torch.int32)


# --- lookup -------------------------------------------------------------------------------

lookup = define(
    "lookup",
    f"(Tensor weight, Tensor ids, {BAGS}, {RULE}, int chunk, int stride, int lead, int pieces, "
    "int width, bool keep) -> (Tensor, Tensor)",
    reference.lookup,
)


@kernel(lookup, "cpu")  # type: ignore[untyped-decorator]
def _lookup_cpu(*args: Any) -> tuple[Tensor, Tensor]:
    from lma.kernels.cpu import lookup as cpu

    return cpu.lookup(*args)


@fake(lookup)  # type: ignore[untyped-decorator]
def _lookup_fake(
    weight: Tensor, ids: Tensor, offsets: Tensor | None, factors: Any, numbers: Tensor, *args: Any
) -> tuple[Tensor, Tensor]:
    pieces, width, keep = args[-3:]
    slots = ids.shape[0] if offsets is None else offsets.shape[0] - 1
    kept = ids.new_empty(ids.shape[0] if keep else 0, pieces, dtype=torch.int32)
    return weight.new_empty(slots // numbers.shape[0], width), kept


def _remember(ctx: Any, dense: Tensor, pooled: tuple[Any, ...], count: int) -> None:
    """Keep what a backward pass reads: `pooled` are the arguments from starts to lead."""
    *tensors, ctx.chunk, ctx.lead = pooled
    # What is pooled is only needed for the gradient of factors, and would be kept alive.
    own = dense if tensors[2] is not None else None
    ctx.save_for_backward(own, *tensors)
    ctx.shape, ctx.count = dense.shape, count


def _remember_lookup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    chunk, _, lead, _, _, ctx.keep = inputs[-6:]
    ctx.mark_non_differentiable(output[1])
    _remember(ctx, inputs[0], (output[1], *inputs[2:8], chunk, lead), len(inputs))


def _pooled_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """Gradients of the weights, the first argument, and of the factors, the fourth."""
    weight, *tensors = ctx.saved_tensors
    grads: list[Any] = [None] * ctx.count
    if ctx.needs_input_grad[0]:
        grads[0] = from_backward(lookup_grad, grad, *tensors, ctx.chunk, ctx.lead, *ctx.shape)
    if ctx.needs_input_grad[3]:
        grads[3] = _factors_grad(ctx, weight, grad, tensors)
    return tuple(grads)


def _factors_grad(ctx: Any, weight: Tensor, grad: Tensor, tensors: list[Any]) -> Tensor:
    starts, offsets, factors, numbers, columns, _, layout = tensors
    own = from_backward(
        factors_grad, weight, grad, starts, offsets, numbers, columns, layout, ctx.chunk, ctx.lead
    )
    return own.to(factors.dtype)  # type: ignore[no-any-return]


def _lookup_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    if not ctx.keep:
        raise RuntimeError("lma::lookup: a backward pass needs keep=True in the forward")
    return _pooled_backward(ctx, grad)


derivative(lookup, _lookup_backward, _remember_lookup)


# --- lookup in an int8 memory, for inference ------------------------------------------------

lookup_quantised = define(
    "lookup_quantised",
    f"(Tensor values, Tensor scales, Tensor ids, {BAGS}, {RULE}, int chunk, int stride, "
    "int lead, int pieces, int width) -> Tensor",
    quantised.lookup_quantised,
)


@kernel(lookup_quantised, "cpu")  # type: ignore[untyped-decorator]
def _lookup_quantised_cpu(*args: Any) -> Tensor:
    from lma.kernels.cpu import quantised as cpu

    return cpu.lookup_quantised(*args)


@fake(lookup_quantised)  # type: ignore[untyped-decorator]
def _lookup_quantised_fake(
    values: Tensor, scales: Tensor, ids: Tensor, offsets: Any, factors: Any, numbers: Tensor,
    *args: Any,
) -> Tensor:  # fmt: skip
    slots = ids.shape[0] if offsets is None else offsets.shape[0] - 1
    return scales.new_empty(slots // numbers.shape[0], args[-1], dtype=torch.float32)


# --- lookup by starts: the gradient of gradients ---------------------------------------------

pool_starts = define(
    "pool_starts",
    f"(Tensor weight, Tensor starts, {BAGS}, Tensor layout, int chunk, int lead, int width) "
    "-> Tensor",
    reference.pool_starts,
)


@fake(pool_starts)  # type: ignore[untyped-decorator]
def _pool_starts_fake(
    weight: Tensor, starts: Tensor, offsets: Tensor | None, _: Any, numbers: Tensor, *args: Any
) -> Tensor:
    slots = starts.shape[0] if offsets is None else offsets.shape[0] - 1
    return weight.new_empty(slots // numbers.shape[0], args[-1])


def _remember_pooled(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _remember(ctx, inputs[0], inputs[1:10], len(inputs))


derivative(pool_starts, _pooled_backward, _remember_pooled)


# --- the dense gradient of the memory -----------------------------------------------------

lookup_grad = define(
    "lookup_grad",
    f"(Tensor grad, Tensor starts, {BAGS}, Tensor layout, int chunk, int lead, int num_blocks, "
    "int block_size) -> Tensor",
    reference.lookup_grad,
)


@kernel(lookup_grad, "cpu")  # type: ignore[untyped-decorator]
def _lookup_grad_cpu(*args: Any) -> Tensor:
    from lma.kernels.cpu import lookup as cpu

    return cpu.lookup_grad(*args)


@fake(lookup_grad)  # type: ignore[untyped-decorator]
def _lookup_grad_fake(grad: Tensor, *args: Any) -> Tensor:
    return grad.new_empty(args[-2], args[-1])


def _lookup_grad_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """Linear in the gradient of the output and in the factors, as the lookup is in its weights."""
    pooled, *tensors = ctx.saved_tensors
    grads: list[Any] = [None] * ctx.count
    if ctx.needs_input_grad[0]:
        grads[0] = pool_starts(grad, *tensors, ctx.chunk, ctx.lead, ctx.shape[1])
    if ctx.needs_input_grad[3]:
        grads[3] = _factors_grad(ctx, grad, pooled, tensors)
    return tuple(grads)


derivative(lookup_grad, _lookup_grad_backward, _remember_pooled)


# --- the gradient of per-entry factors ----------------------------------------------------

factors_grad = define(
    "factors_grad",
    "(Tensor weight, Tensor grad, Tensor starts, Tensor? offsets, Tensor numbers, Tensor columns, "
    "Tensor layout, int chunk, int lead) -> Tensor",
    reference.factors_grad,
)


@kernel(factors_grad, "cpu")  # type: ignore[untyped-decorator]
def _factors_grad_cpu(*args: Any) -> Tensor:
    from lma.kernels.cpu import lookup as cpu

    return cpu.factors_grad(*args)


@fake(factors_grad)  # type: ignore[untyped-decorator]
def _factors_grad_fake(weight: Tensor, grad: Tensor, starts: Tensor, *args: Any) -> Tensor:
    return weight.new_empty(starts.shape[0])


def _remember_factors_grad(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.chunk, ctx.lead = inputs
    ctx.save_for_backward(*tensors)


def _factors_grad_backward(ctx: Any, own: Tensor) -> tuple[Any, ...]:
    """Linear in weights and gradient: what comes back takes the place of the factors."""
    weight, grad, starts, offsets, numbers, columns, layout = ctx.saved_tensors
    sums = torch.zeros_like(numbers)
    pooled = (starts, offsets, own, numbers, columns, sums, layout, ctx.chunk, ctx.lead)
    grads: list[Any] = [None] * 9
    if ctx.needs_input_grad[0]:
        grads[0] = lookup_grad(grad, *pooled, *weight.shape)
    if ctx.needs_input_grad[1]:
        grads[1] = pool_starts(weight, *pooled, grad.shape[1])
    return tuple(grads)


derivative(factors_grad, _factors_grad_backward, _remember_factors_grad)


# --- gradients of touched blocks, and updates by them ---------------------------------------

touched_grad = define(
    "touched_grad",
    f"(Tensor grad, Tensor starts, {BAGS}, Tensor layout, int chunk, int lead, int num_blocks, "
    "int block_size) -> (Tensor, Tensor)",
    touched.touched_grad,
)


@kernel(touched_grad, "cpu")  # type: ignore[untyped-decorator]
def _touched_grad_cpu(*args: Any) -> tuple[Tensor, Tensor]:
    from lma.kernels.cpu import touched as cpu

    return cpu.touched_grad(*args)


@fake(touched_grad)  # type: ignore[untyped-decorator]
def _touched_grad_fake(grad: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    count = op_library.get_ctx().new_dynamic_size()
    return grad.new_empty(count, dtype=torch.int64), grad.new_empty(count, args[-1])


def not_twice(*_: Any) -> None:
    """The backward pass of a gradient of touched blocks."""
    raise RuntimeError(
        "lma: the gradient of touched blocks is not differentiable again: use the memory's dense "
        "gradient (sparse=False, no FusedOptimizer)"
    )


derivative(touched_grad, not_twice)


# It changes its first three arguments; autograd learns that from its caller (`increment_version`).
fused_update = define(
    "fused_update",
    "(Tensor(a!) weight, Tensor(b!) state, Tensor(c!) second, Tensor grad, Tensor starts, "
    f"{BAGS}, Tensor layout, int chunk, int lead, int kind, float lr, float eps, "
    "float beta1, float beta2) -> ()",
    touched.fused_update,
)


@kernel(fused_update, "cpu")  # type: ignore[untyped-decorator]
def _fused_update_cpu(*args: Any) -> None:
    from lma.kernels.cpu import touched as cpu

    cpu.fused_update(*args)


@fake(fused_update)  # type: ignore[untyped-decorator]
def _fused_update_fake(*args: Any) -> None:
    return None


gpu_kernel(accept_ids, inputs.accept_ids, "accept")
for op, function in (
    (starts, reference.starts),
    (lookup, reference.lookup),
    (lookup_quantised, quantised.lookup_quantised),
    (lookup_grad, reference.lookup_grad),
    (factors_grad, reference.factors_grad),
    (touched_grad, touched.touched_grad),
    (fused_update, touched.fused_update),
):
    gpu_kernel(op, function)
