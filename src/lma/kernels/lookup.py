"""The public functions of the kernels: arguments are checked here, once, and nowhere below."""

from __future__ import annotations

import torch
from torch import Tensor

from lma.kernels import ops
from lma.kernels.reference.quantised import Quantised
from lma.kernels.rule import Rule


def chunk_starts(rule: Rule, ids: Tensor, numbers: Tensor, unit: int, pieces: int) -> Tensor:
    """First unit of every piece of every token's vector.

    Args:
        rule: Where vectors lie.
        ids: Token ids, int64 [entries], accepted by their tables.
        numbers: Their tables, int64 [features]; entry e is of table numbers[e % features].
        unit: Floats of one row of the memory.
        pieces: `rule.pieces` of the largest of these tables.

    Returns:
        int32 [entries, pieces]: the private part's where the rule has such, then the chunks';
        -1 where a table has fewer.
    """
    _check_ids(ids, numbers)
    if len(numbers) and len(ids) % len(numbers):
        raise ValueError(f"{len(ids)} ids are no multiple of {len(numbers)} features")
    return ops.starts(ids, numbers, *rule[:6], unit, rule.chunk, rule.stride, rule.lead, pieces)  # type: ignore[no-any-return]


def lookup(
    weight: Tensor | Quantised,
    rule: Rule,
    ids: Tensor,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    pieces: int,
    width: int,
    offsets: Tensor | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """Pooled vectors of all features in one call, differentiable in float weights and `factors`.

    out[r, columns[f] + i] = sum over the entries e of feature f's bag in row r of
    factors[e] * vector(e)[i], divided by the bag's length where modes[f] is 1. An empty bag gives
    zeros. Sums are taken in float32 at least; the result has the dtype of `weight`, float32 if that
    is int8.

    Args:
        weight: The memory, [num_blocks, block_size]: floats, or int8 with its scales.
        rule: Where vectors lie.
        ids: Token ids accepted by their tables, int64 [entries].
        numbers: Table of every feature, int64 [features].
        columns: First output column of every feature, and the end: int64 [features + 1].
        modes: 0 sum, 1 mean: int64 [features].
        pieces: `rule.pieces` of the largest of these tables.
        width: `columns[-1]`.
        offsets: Checked offsets, int64 [features * batch + 1], feature after feature; None: one
            entry per feature and row, row after row.
        factors: Per-entry factors [entries]; only with sums.

    Returns:
        [batch, width].
    """
    check_lookup(weight, ids, numbers, offsets, factors)
    if isinstance(weight, Quantised):
        if factors is not None and factors.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "lookup: factors of an int8 memory have no gradient: use torch.no_grad(), or the "
                "memory in floats"
            )
        return ops.lookup_quantised(  # type: ignore[no-any-return]
            *weight, ids, offsets, factors, numbers, columns, modes, *rule, pieces, width
        )
    keep = torch.is_grad_enabled() and (
        weight.requires_grad or (factors is not None and factors.requires_grad)
    )
    out, _ = ops.lookup(
        weight, ids, offsets, factors, numbers, columns, modes, *rule, pieces, width, keep
    )
    return out  # type: ignore[no-any-return]


def check_lookup(
    weight: Tensor | Quantised,
    ids: Tensor,
    numbers: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
) -> None:
    """The checks of `lookup`'s arguments against one another."""
    _check_ids(ids, numbers)
    if not isinstance(weight, Quantised) and not weight.is_floating_point():
        raise TypeError(
            f"weights must be floats, found {weight.dtype}; int8 comes with scales, as Quantised"
        )
    for name, tensor in (("weights", weight), ("offsets", offsets), ("factors", factors)):
        # Kernels read raw memory: nothing from another device may get that far.
        if tensor is not None and tensor.device != ids.device:
            raise ValueError(
                f"{name} are on {tensor.device}, ids on {ids.device}: move one of them"
            )
    if not len(numbers):
        raise ValueError("lookup: at least one feature is needed")
    units = len(ids) if offsets is None else len(offsets) - 1
    if units % len(numbers):
        raise ValueError(f"lookup: {units} bags are no multiple of {len(numbers)} features")
    if factors is not None and factors.shape != ids.shape:
        raise ValueError(f"lookup: factors must be {list(ids.shape)}, found {list(factors.shape)}")
    if factors is not None and not factors.is_floating_point():
        raise TypeError(f"lookup: factors must be floats, found {factors.dtype}")


def _check_ids(ids: Tensor, numbers: Tensor) -> None:
    for name, tensor in (("ids", ids), ("numbers", numbers)):
        if tensor.dtype != torch.int64 or tensor.dim() != 1:
            raise TypeError(
                f"{name} must be int64 with one dimension, found {tensor.dtype} "
                f"{list(tensor.shape)}"
            )
