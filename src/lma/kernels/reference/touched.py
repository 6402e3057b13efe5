"""Gradients of touched blocks only, and optimizers that apply them, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from lma.kernels.reference.lookup import entry_grads, entry_scale, read_entries
from lma.kernels.update import UpdateKind


def touched_grad(
    grad: Tensor,
    starts: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    num_blocks: int,
    block_size: int,
) -> tuple[Tensor, Tensor]:
    """The rows of `lookup_grad` that some entry reads: (rows ascending, their gradients).

    Returns:
        int64 [touched] and [touched, block_size], summed in float32 (float64 stays), in the
        dtype of `grad`.
    """
    wide = torch.promote_types(grad.dtype, torch.float32)
    size = num_blocks * block_size
    entries = read_entries(starts, offsets, numbers, columns, layout, chunk, lead, block_size, size)
    share = entry_grads(grad.to(wide), entries, columns, len(numbers))
    share = share * entry_scale(entries, factors, modes, wide).unsqueeze(1)
    places, share = entries.places[entries.used], share[entries.used]
    blocks, position = torch.unique(places // block_size, return_inverse=True)
    values = share.new_zeros(len(blocks) * block_size)
    values = values.index_add(0, position * block_size + places % block_size, share)
    return blocks, values.view(-1, block_size).to(grad.dtype)


def fused_update(
    weight: Tensor,
    state: Tensor,
    second: Tensor,
    grad: Tensor,
    starts: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    kind: int,
    lr: float,
    eps: float,
    beta1: float,
    beta2: float,
) -> None:
    """One optimizer step on the touched blocks of `weight`, in place; formulas in `UpdateKind`.

    Args:
        weight: [num_blocks, block_size], changed.
        state: Sums of squares (Adagrad: as weight; block-wise: [num_blocks]) or first moments
            (Adam), float32 at least, changed; empty for SGD.
        second: Second moments (Adam), changed; else empty.
        lr: Rate of this step, corrections included.
        kind: An `UpdateKind`.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    blocks, g = touched_grad(
        grad.to(wide), starts, offsets, factors, numbers, columns, modes, layout, chunk, lead,
        *weight.shape,
    )  # fmt: skip
    apply_update(weight, state, second, blocks, g, kind, lr, eps, beta1, beta2)


def apply_update(
    weight: Tensor,
    state: Tensor,
    second: Tensor,
    blocks: Tensor,
    g: Tensor,
    kind: int,
    lr: float,
    eps: float,
    beta1: float,
    beta2: float,
) -> None:
    """`fused_update` from touched blocks [touched] and their gradients [touched, block_size].

    Gradients and state are float32 at least; weights of fewer bits are rounded once.
    """
    if kind == UpdateKind.SGD:
        step = g
    elif kind == UpdateKind.ADAGRAD:
        sums = state[blocks] + g * g
        state[blocks] = sums
        step = g / (sums.sqrt() + eps)
    elif kind == UpdateKind.BLOCK_ADAGRAD:
        sums = state[blocks] + (g * g).mean(1)
        state[blocks] = sums
        step = g / (sums.sqrt() + eps).unsqueeze(1)
    else:
        first = state[blocks] + (g - state[blocks]) * (1 - beta1)
        squares = second[blocks] + (g * g - second[blocks]) * (1 - beta2)
        state[blocks], second[blocks] = first, squares
        step = first / (squares.sqrt() + eps)
    weight[blocks] = (weight[blocks] - lr * step).to(weight.dtype)
