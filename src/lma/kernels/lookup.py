"""The kernels' doors for `lma.allocation` and `lma.nn`; users of the package have no need of them.

What tensors *are* is checked here, once, and nowhere below: dtypes, dimensions, devices, lengths.
What they *hold* is trusted, because a look would slow small lookups down and make a GPU wait: ids
have been through `ops.accept_ids`, offsets through `ops.accept_offsets`, and all else is the
module's and its allocation's own. Kernels read and write raw memory: where that trust is betrayed
they give garbage, or crash.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lma.kernels import ops
from lma.kernels.reference import lookup as reference
from lma.kernels.reference.quantised import Quantised, num_groups
from lma.kernels.rule import Rule

_TOKENS = (("ids", torch.int64, 1), ("numbers", torch.int64, 1))
_FEATURES = (("columns", torch.int64, 1), ("modes", torch.int64, 1))
_RULE = (
    ("layout", torch.int64, 2),
    ("seeds", torch.int64, 1),
    ("draws", torch.uint8, 2),
    ("codes", torch.uint8, 1),
    ("fingerprints", torch.int16, 2),
    ("overflow_keys", torch.int64, 1),
)
_STARTS, _LOOKUP = (*_TOKENS, *_RULE), (*_TOKENS, *_FEATURES, *_RULE)
_OFFSETS = (("offsets", torch.int64, 1),)


def chunk_starts(rule: Rule, ids: Tensor, numbers: Tensor, unit: int, pieces: int) -> Tensor:
    """First unit of every piece of every token's vector.

    Args:
        rule: Where vectors lie.
        ids: Token ids, int64 [entries], accepted by their tables.
        numbers: Their tables, int64 [features], trusted; entry e is of table
            numbers[e % features].
        unit: Floats of one row of the memory.
        pieces: `rule.pieces` of the largest of these tables, trusted.

    Returns:
        int32 [entries, pieces]: the private part's where the rule has such, then the chunks';
        -1 where a table has fewer.
    """
    _check_tensors(_STARTS, (ids, numbers, *rule[:6]), ids.device)
    entries, features = ids.numel(), numbers.numel()
    if entries and (not features or entries % features):
        raise ValueError(f"{entries} ids are no multiple of {features} features")
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

    That is, as often as asked; in forward mode the plain torch of `reference` computes them.

    out[r, columns[f] + i] = sum over the entries e of feature f's bag in row r of
    factors[e] * vector(e)[i], divided by the bag's length where modes[f] is 1. An empty bag gives
    zeros. Sums are taken in float32 at least; the result has the dtype of `weight`, float32 if that
    is int8.

    Args:
        weight: The memory that `rule` was made for, [num_blocks, block_size]: floats, or int8
            with its scales.
        rule: Where vectors lie.
        ids: Token ids accepted by their tables, int64 [entries].
        numbers: Table of every feature, int64 [features], trusted.
        columns: First output column of every feature, trusted, and the end: int64 [features + 1].
        modes: 0 sum, 1 mean: int64 [features].
        pieces: `rule.pieces` of the largest of these tables, trusted.
        width: `columns[-1]`.
        offsets: Accepted offsets, int64 [features * batch + 1], feature after feature; None: one
            entry per feature and row, row after row.
        factors: Per-entry factors [entries]; only with sums.

    Returns:
        [batch, width].

    Raises:
        TypeError, ValueError: A tensor of another dtype, shape or device. On the CPU, outside
            compiled graphs, also another `width`, and factors with means.
    """
    check_lookup(weight, rule, ids, numbers, columns, modes, width, offsets, factors)
    if isinstance(weight, Quantised):
        needed = factors is not None and factors.requires_grad and torch.is_grad_enabled()
        if needed or has_tangent(factors):
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
    function = reference.lookup if in_forward_mode() else ops.lookup
    out, _ = function(
        weight, ids, offsets, factors, numbers, columns, modes, *rule, pieces, width, keep
    )
    return out


def in_forward_mode() -> bool:
    """Whether forward-mode differentiation is under way: ops of our own would drop its tangents."""
    # Asking the tensors takes longer, and they do not show what an outer `torch.func.jvp` gave.
    return forward_ad._current_level >= 0


def has_tangent(*tensors: Tensor | None) -> bool:
    """Whether forward-mode differentiation goes through one of these."""
    return in_forward_mode() and any(
        tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]
        for tensor in tensors
    )


def check_lookup(
    weight: Tensor | Quantised,
    rule: Rule,
    ids: Tensor,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    width: int,
    offsets: Tensor | None,
    factors: Tensor | None,
) -> None:
    """The checks of `lookup`'s arguments, alone and against one another."""
    device = ids.device
    _check_tensors(_LOOKUP, (ids, numbers, columns, modes, *rule[:6]), device)
    if offsets is not None:
        _check_tensors(_OFFSETS, (offsets,), device)
    _check_weight(weight, device)
    # Several times as fast as `len`.
    features, ends, kinds = numbers.numel(), columns.numel(), modes.numel()
    if not features:
        raise ValueError("lookup: at least one feature is needed")
    if ends != features + 1 or kinds != features:
        raise ValueError(
            f"lookup: {features} features have {features + 1} columns and {features} modes, found "
            f"{ends} and {kinds}"
        )
    bags = ids.numel() if offsets is None else offsets.numel() - 1
    if bags < 0 or bags % features:
        raise ValueError(f"lookup: {bags} bags are no multiple of {features} features")
    if factors is not None:
        _check_factors(factors, ids)
    # Elsewhere a look at them waits for a GPU, or breaks a graph.
    if ids.is_cpu and not torch.compiler.is_compiling():
        # Several times as fast as an index or `item`.
        end = columns.tolist()[-1]
        if end != width:
            raise ValueError(f"lookup: columns end at {end}, width is {width}")
        if factors is not None and int(modes.max()):
            raise ValueError("lookup: factors need sums, found a mean among the modes")


def _check_tensors(
    expected: tuple[tuple[str, torch.dtype, int], ...],
    tensors: tuple[Tensor, ...],
    device: torch.device,
) -> None:
    """Whether tensors have the expected dtypes and numbers of dimensions, and are on `device`."""
    for (name, dtype, dims), tensor in zip(expected, tensors, strict=True):
        if tensor.dtype is not dtype or tensor.ndim != dims or tensor.device != device:
            raise _unlike(name, tensor, dtype, dims, device)


def _check_weight(weight: Tensor | Quantised, device: torch.device) -> None:
    if not isinstance(weight, Quantised):
        if not weight.is_floating_point() or weight.ndim != 2:
            raise TypeError(
                f"weights must be floats [num_blocks, block_size], found {weight.dtype} "
                f"{list(weight.shape)}; int8 comes with scales, as Quantised"
            )
        if weight.device != device:
            raise _elsewhere("weights", weight, device)
        return
    values, scales = weight
    if values.dtype not in (torch.int8, torch.uint8) or values.ndim != 2 or values.device != device:
        raise _unlike("weights", values, torch.int8, 2, device)
    groups = num_groups(*weight.shape)
    if scales.dtype != torch.float16 or scales.shape != (groups,) or scales.device != device:
        raise _unlike(f"scales of {groups} groups", scales, torch.float16, 1, device)


def _check_factors(factors: Tensor, ids: Tensor) -> None:
    if factors.shape != ids.shape:
        raise ValueError(f"lookup: factors must be {list(ids.shape)}, found {list(factors.shape)}")
    if not factors.is_floating_point():
        raise TypeError(f"lookup: factors must be floats, found {factors.dtype}")
    if factors.device != ids.device:
        raise _elsewhere("factors", factors, ids.device)


def _elsewhere(name: str, tensor: Tensor, device: torch.device) -> ValueError:
    return ValueError(f"{name} are on {tensor.device}, ids on {device}: move one of them")


def _unlike(
    name: str, tensor: Tensor, dtype: torch.dtype, dims: int, device: torch.device
) -> TypeError | ValueError:
    """The error for a tensor of another dtype, of other dimensions or on another device."""
    if tensor.device != device:
        return _elsewhere(name, tensor, device)
    wanted = f"{str(dtype).removeprefix('torch.')} with {dims} dimension{'s' * (dims > 1)}"
    return TypeError(f"{name} must be {wanted}, found {tensor.dtype} {list(tensor.shape)}")
