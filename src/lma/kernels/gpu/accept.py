"""Ids checked or mended on a GPU in one pass; see `reference.inputs`."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton evaluates annotations, and knows none but its own.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lma.kernels.reference import inputs

_WRAP, _CLAMP = tl.constexpr(inputs.WRAP), tl.constexpr(inputs.CLAMP)
ENTRIES = 512  # of one program


@triton.jit(do_not_specialize=["total"])
def accept_kernel(
    ids, numbers, sizes, out, flag, total, features, POLICY: tl.constexpr, BLOCK: tl.constexpr
):
    """`inputs.accept_ids` of BLOCK entries; `flag` becomes 1 where an id stays outside."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = e < total
    token = tl.load(ids + e, mask=mask, other=0)
    size = tl.load(sizes + tl.load(numbers + e % features, mask=mask, other=0), mask=mask, other=-1)
    free = size < 0
    if POLICY == _WRAP:
        rest = token % tl.maximum(size, 1)
        rest = tl.where(rest < 0, rest + size, rest)  # Triton's remainder has the sign of C's
        token = tl.where(free, token, rest)
    elif POLICY == _CLAMP:
        nearest = tl.minimum(tl.maximum(token, 0), tl.maximum(size - 1, 0))
        token = tl.where(free, token, nearest)
    tl.store(out + e, token, mask=mask)
    bad = mask & ((token < 0) | (token >= size)) & (size >= 0)
    tl.store(flag + tl.zeros((BLOCK,), tl.int32), 1, mask=bad)


def accept_ids(
    ids: Tensor, numbers: Tensor, sizes: Tensor, policy: int, check: bool, names: str
) -> Tensor:
    """`inputs.accept_ids`; where `check` is set it waits for the device."""
    if not len(ids):
        return ids.clone()
    # Not of a view: the op must not give its input back.
    out = torch.empty(len(ids), dtype=torch.int64, device=ids.device)
    flag = torch.zeros(1, dtype=torch.int32, device=ids.device)
    accept_kernel[(triton.cdiv(len(ids), ENTRIES),)](
        ids.contiguous(), numbers.contiguous(), sizes, out, flag, len(ids), len(numbers),
        POLICY=policy, BLOCK=ENTRIES,
    )  # fmt: skip
    if check and bool(flag):
        return inputs.accept_ids(ids, numbers, sizes, policy, check, names)
    return out
