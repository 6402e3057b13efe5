"""How ops are defined: their schemas' common parts, and what is registered with PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import library as op_library

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


def kernel(op: Any, device: str) -> Any:
    """Decorator: an op's implementation on a device."""
    return op_library.impl(op.name(), device, lib=library)


def fake(op: Any) -> Any:
    """Decorator: the function that says an op's shapes."""
    return op_library.register_fake(op.name(), lib=library)


def derivative(op: Any, backward: Any, remember: Callable[..., None] | None = None) -> None:
    """Register an op's backward pass, and what a forward pass keeps for it."""
    op_library.register_autograd(op.name(), backward, setup_context=remember, lib=library)


def from_backward(op: Any, *args: Any) -> Any:
    """An op called by a backward pass: where none is recorded, past the op's own autograd.

    That is Python, and would cost every step some microseconds.
    """
    if torch.is_grad_enabled():
        return op(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return op(*args)


def gpu(function: Any, module: str = "lookup") -> Any:
    """The Triton twin of a reference function; itself where this system has no Triton."""
    if importlib.util.find_spec("triton") is None:
        return function
    return getattr(importlib.import_module(f"lma.kernels.gpu.{module}"), function.__name__)


def gpu_kernel(op: Any, function: Any, module: str = "lookup") -> None:
    """Register the Triton twin of a reference function as an op's implementation on GPUs."""

    def run(*args: Any) -> Any:
        # Triton launches on the current device, which need not be the tensors'.
        with torch.cuda.device(next(a.device for a in args if isinstance(a, Tensor))):
            return gpu(function, module)(*args)

    library.impl(op.name(), run, "CUDA")
