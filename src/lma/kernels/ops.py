"""The ops: schema, shapes, autograd; PyTorch picks the backend by the tensors' device.

Every op is `torch.ops.lma.<name>`. The default implementation is `reference`, which runs on any
device and is what exporters see; on the CPU it is Numba (`kernels.cpu`) and on GPUs Triton
(`kernels.gpu`), imported at the first call. Arguments are checked by the public functions of
`kernels.lookup`, not here.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch import library as op_library

from lma.kernels.reference import inputs, quantised, touched
from lma.kernels.reference import lookup as reference

RULE = (
    "Tensor layout, Tensor seeds, Tensor draws, Tensor codes, Tensor fingerprints, "
    "Tensor overflow_keys"
)
BAGS = "Tensor? offsets, Tensor? factors, Tensor numbers, Tensor columns, Tensor modes"


# Ops defined one level below PyTorch's `custom_op`, whose checks at every call cost more than
# the small kernels; `opcheck` makes them once, in the tests.
library: Any = op_library.Library("lma", "DEF")  # type: ignore[no-untyped-call]


def define(name: str, schema: str, default: Any) -> Any:
    """The op `lma::name`, with the implementation that serves where no other does."""
    library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(name, default, "CompositeExplicitAutograd")
    return getattr(torch.ops.lma, name).default


def _kernel(op: Any, device: str) -> Any:
    return op_library.impl(op.name(), device, lib=library)


def fake(op: Any) -> Any:
    """Decorator: the function that says an op's shapes."""
    return op_library.register_fake(op.name(), lib=library)


def gpu(function: Any, module: str = "lookup") -> Any:
    """The Triton twin of a reference function; itself where this system has no Triton."""
    if importlib.util.find_spec("triton") is None:
        return function
    return getattr(importlib.import_module(f"lma.kernels.gpu.{module}"), function.__name__)


def _gpu_kernel(op: Any, function: Any, module: str = "lookup") -> None:
    """Register the Triton twin of a reference function as an op's implementation on GPUs."""

    def run(*args: Any) -> Any:
        # Triton launches on the current device, which need not be the tensors'.
        with torch.cuda.device(next(a.device for a in args if isinstance(a, Tensor))):
            return gpu(function, module)(*args)

    library.impl(op.name(), run, "CUDA")


# --- inputs -------------------------------------------------------------------------------

accept_ids = define(
    "accept_ids",
    "(Tensor ids, Tensor numbers, Tensor sizes, int policy, bool check, str names) -> Tensor",
    inputs.accept_ids,
)


@_kernel(accept_ids, "cpu")  # type: ignore[untyped-decorator]
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


@_kernel(starts, "cpu")  # type: ignore[untyped-decorator]
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


@_kernel(lookup, "cpu")  # type: ignore[untyped-decorator]
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


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    weight, _, offsets, factors, numbers, columns, modes, layout = inputs[:8]
    chunk, _, lead, _, _, keep = inputs[-6:]
    _, starts = output
    ctx.mark_non_differentiable(starts)
    ctx.shape, ctx.chunk, ctx.lead, ctx.keep = weight.shape, chunk, lead, keep
    # The weights are only needed for the gradient of factors, and would be kept alive.
    own = weight if factors is not None else None
    ctx.save_for_backward(own, starts, offsets, factors, numbers, columns, modes, layout)


def _lookup_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    if not ctx.keep:
        raise RuntimeError("lma::lookup: a backward pass needs keep=True in the forward")
    weight, starts, offsets, factors, numbers, columns, modes, layout = ctx.saved_tensors
    grads: list[Any] = [None] * 19
    if ctx.needs_input_grad[0]:
        grads[0] = lookup_grad(
            grad, starts, offsets, factors, numbers, columns, modes, layout, ctx.chunk, ctx.lead,
            *ctx.shape,
        )  # fmt: skip
    if factors is not None and ctx.needs_input_grad[3]:
        grads[3] = factors_grad(
            weight, grad, starts, offsets, numbers, columns, layout, ctx.chunk, ctx.lead
        ).to(factors.dtype)
    return tuple(grads)


op_library.register_autograd(lookup.name(), _lookup_backward, setup_context=_remember, lib=library)


# --- lookup in an int8 memory, for inference ------------------------------------------------

lookup_quantised = define(
    "lookup_quantised",
    f"(Tensor values, Tensor scales, Tensor ids, {BAGS}, {RULE}, int chunk, int stride, "
    "int lead, int pieces, int width) -> Tensor",
    quantised.lookup_quantised,
)


@_kernel(lookup_quantised, "cpu")  # type: ignore[untyped-decorator]
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


# --- the dense gradient of the memory -----------------------------------------------------

lookup_grad = define(
    "lookup_grad",
    f"(Tensor grad, Tensor starts, {BAGS}, Tensor layout, int chunk, int lead, int num_blocks, "
    "int block_size) -> Tensor",
    reference.lookup_grad,
)


@_kernel(lookup_grad, "cpu")  # type: ignore[untyped-decorator]
def _lookup_grad_cpu(*args: Any) -> Tensor:
    from lma.kernels.cpu import lookup as cpu

    return cpu.lookup_grad(*args)


@fake(lookup_grad)  # type: ignore[untyped-decorator]
def _lookup_grad_fake(grad: Tensor, *args: Any) -> Tensor:
    return grad.new_empty(args[-2], args[-1])


# --- the gradient of per-entry factors ----------------------------------------------------

factors_grad = define(
    "factors_grad",
    "(Tensor weight, Tensor grad, Tensor starts, Tensor? offsets, Tensor numbers, Tensor columns, "
    "Tensor layout, int chunk, int lead) -> Tensor",
    reference.factors_grad,
)


@_kernel(factors_grad, "cpu")  # type: ignore[untyped-decorator]
def _factors_grad_cpu(*args: Any) -> Tensor:
    from lma.kernels.cpu import lookup as cpu

    return cpu.factors_grad(*args)


@fake(factors_grad)  # type: ignore[untyped-decorator]
def _factors_grad_fake(weight: Tensor, grad: Tensor, starts: Tensor, *args: Any) -> Tensor:
    return weight.new_empty(starts.shape[0])


# --- gradients of touched blocks, and updates by them ---------------------------------------

touched_grad = define(
    "touched_grad",
    f"(Tensor grad, Tensor starts, {BAGS}, Tensor layout, int chunk, int lead, int num_blocks, "
    "int block_size) -> (Tensor, Tensor)",
    touched.touched_grad,
)


@_kernel(touched_grad, "cpu")  # type: ignore[untyped-decorator]
def _touched_grad_cpu(*args: Any) -> tuple[Tensor, Tensor]:
    from lma.kernels.cpu import touched as cpu

    return cpu.touched_grad(*args)


@fake(touched_grad)  # type: ignore[untyped-decorator]
def _touched_grad_fake(grad: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    count = op_library.get_ctx().new_dynamic_size()
    return grad.new_empty(count, dtype=torch.int64), grad.new_empty(count, args[-1])


# It changes its first three arguments; autograd learns that from its caller (`increment_version`).
fused_update = define(
    "fused_update",
    "(Tensor(a!) weight, Tensor(b!) state, Tensor(c!) second, Tensor grad, Tensor starts, "
    f"{BAGS}, Tensor layout, int chunk, int lead, int kind, float lr, float eps, "
    "float beta1, float beta2) -> ()",
    touched.fused_update,
)


@_kernel(fused_update, "cpu")  # type: ignore[untyped-decorator]
def _fused_update_cpu(*args: Any) -> None:
    from lma.kernels.cpu import touched as cpu

    cpu.fused_update(*args)


@fake(fused_update)  # type: ignore[untyped-decorator]
def _fused_update_fake(*args: Any) -> None:
    return None


_gpu_kernel(accept_ids, inputs.accept_ids, "accept")
for op, function in (
    (starts, reference.starts),
    (lookup, reference.lookup),
    (lookup_quantised, quantised.lookup_quantised),
    (lookup_grad, reference.lookup_grad),
    (factors_grad, reference.factors_grad),
    (touched_grad, touched.touched_grad),
    (fused_update, touched.fused_update),
):
    _gpu_kernel(op, function)
