"""Launchers of the Triton kernels: same names, arguments and results as `reference.lookup`."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from lma.kernels.gpu.address_kernel import starts_kernel
from lma.kernels.gpu.pool_kernel import dot_kernel, pool_kernel, scatter_kernel
from lma.kernels.gpu.segment_kernel import sorted_grad
from lma.kernels.layout import Column, Kind
from lma.kernels.reference import lookup as reference
from lma.kernels.reference import touched
from lma.kernels.reference.quantised import Quantised, group_blocks

ENTRIES = 128  # entries of one program


def _covered(*tensors: Tensor) -> bool:
    """Whether the kernels take these dtypes; float64 sums need the reference."""
    return all(t.dtype in (torch.float32, torch.bfloat16, torch.float16) for t in tensors)


def starts(
    ids: Tensor,
    numbers: Tensor,
    layout: Tensor,
    seeds: Tensor,
    draws: Tensor,
    codes: Tensor,
    fingerprints: Tensor,
    overflow_keys: Tensor,
    unit: int,
    chunk: int,
    stride: int,
    lead: int,
    pieces: int,
) -> Tensor:
    """`reference.starts`, the same bits."""
    out = torch.empty(len(ids), pieces, dtype=torch.int32, device=ids.device)
    if not len(ids):
        return out
    kinds = layout[:, Column.KIND]
    signed = bool(((kinds == Kind.RANDOM) | (kinds == Kind.LEARNED)).any())
    steps = len(overflow_keys).bit_length()
    starts_kernel[(triton.cdiv(len(ids), ENTRIES),)](
        ids.contiguous(), numbers, layout, seeds, draws, codes, fingerprints, overflow_keys, out,
        len(ids), len(numbers), pieces, unit, chunk, stride, lead, draws.shape[1], steps,
        SIGNED=signed, BLOCK=ENTRIES,
    )  # fmt: skip
    return out


def _block(layout: Tensor) -> int:
    """Lanes of one program: the largest dimension, to the next power of two."""
    return int(triton.next_power_of_2(max(1, int(layout[:, Column.DIM].max()))))


def lookup(
    weight: Tensor,
    ids: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    seeds: Tensor,
    draws: Tensor,
    codes: Tensor,
    fingerprints: Tensor,
    overflow_keys: Tensor,
    chunk: int,
    stride: int,
    lead: int,
    pieces: int,
    width: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """`reference.lookup`."""
    tables = reference.tables_of_entries(numbers, offsets, len(ids))
    found = starts(
        ids, tables, layout, seeds, draws, codes, fingerprints, overflow_keys, weight.shape[1],
        chunk, stride, lead, pieces,
    )  # fmt: skip
    kept = found if keep else found.new_empty(0, pieces)
    if not _covered(weight):
        out = reference.pool_starts(
            weight, found, offsets, factors, numbers, columns, modes, layout, chunk, lead, width
        )
        return out, kept
    out = _pool(
        weight, found, offsets, factors, numbers, columns, modes, layout, chunk, lead, width
    )
    return out, kept


def lookup_quantised(
    values: Tensor,
    scales: Tensor,
    ids: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    seeds: Tensor,
    draws: Tensor,
    codes: Tensor,
    fingerprints: Tensor,
    overflow_keys: Tensor,
    chunk: int,
    stride: int,
    lead: int,
    pieces: int,
    width: int,
) -> Tensor:
    """`reference.lookup_quantised`."""
    memory = Quantised(values, scales)
    tables = reference.tables_of_entries(numbers, offsets, len(ids))
    found = starts(
        ids, tables, layout, seeds, draws, codes, fingerprints, overflow_keys, memory.shape[1],
        chunk, stride, lead, pieces,
    )  # fmt: skip
    return _pool(
        memory, found, offsets, factors, numbers, columns, modes, layout, chunk, lead, width
    )


def _pool(
    memory: Tensor | Quantised,
    starts: Tensor,
    offsets: Tensor | None,
    factors: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    modes: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
    width: int,
) -> Tensor:
    """Pooled vectors: in the dtype of floats, float32 of a quantised memory."""
    weight, scales = memory if isinstance(memory, Quantised) else (memory, None)
    bits = memory.bits if isinstance(memory, Quantised) else 32
    num_blocks, unit = memory.shape
    slots = len(starts) if offsets is None else len(offsets) - 1
    features = len(numbers)
    dtype = weight.dtype if scales is None else torch.float32
    out = weight.new_empty(slots // features, width, dtype=dtype)
    if slots:
        pool_kernel[(slots,)](
            weight.contiguous(), _or(scales, weight), starts, _or(offsets, starts),
            _or(factors, weight), numbers, columns, modes, layout, out, features,
            slots // features, starts.shape[1], unit, chunk, lead, width, max(1, num_blocks * unit),
            group_blocks(unit) * unit, BAGS=offsets is not None, FACTORS=factors is not None,
            BITS=bits, BLOCK=_block(layout),
        )  # fmt: skip
    return out


def lookup_grad(
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
) -> Tensor:
    """`reference.lookup_grad`, added up by atomics in any order.

    With `torch.use_deterministic_algorithms(True)` touches are sorted and added up in order: the
    same bits every time.
    """
    place = (numbers, columns, modes, layout, chunk, lead, num_blocks, block_size)
    if not _covered(grad):
        return reference.lookup_grad(grad, starts, offsets, factors, *place)
    if torch.are_deterministic_algorithms_enabled():
        rows, values = sorted_grad(grad, starts, offsets, factors, *place)
        dense = torch.zeros(num_blocks, block_size, dtype=torch.float32, device=grad.device)
        return dense.index_copy_(0, rows, values).to(grad.dtype)
    out = torch.zeros(num_blocks, block_size, dtype=torch.float32, device=grad.device)
    features = len(numbers)
    slots = len(grad) * features
    if slots:
        scatter_kernel[(slots,)](
            grad.contiguous(), starts, _or(offsets, starts), _or(factors, grad), numbers, columns,
            modes, layout, out, features, len(grad), starts.shape[1], block_size, chunk, lead,
            grad.shape[1], max(1, out.numel()), BAGS=offsets is not None,
            FACTORS=factors is not None, BLOCK=_block(layout),
        )  # fmt: skip
    return out.to(grad.dtype)


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
    """`reference.touched_grad`, sorted and added up in order."""
    place = (numbers, columns, modes, layout, chunk, lead, num_blocks, block_size)
    if not _covered(grad):
        return touched.touched_grad(grad, starts, offsets, factors, *place)
    rows, values = sorted_grad(grad, starts, offsets, factors, *place)
    return rows, values.to(grad.dtype)


def factors_grad(
    weight: Tensor,
    grad: Tensor,
    starts: Tensor,
    offsets: Tensor | None,
    numbers: Tensor,
    columns: Tensor,
    layout: Tensor,
    chunk: int,
    lead: int,
) -> Tensor:
    """`reference.factors_grad`."""
    if not _covered(weight, grad):
        return reference.factors_grad(
            weight, grad, starts, offsets, numbers, columns, layout, chunk, lead
        )
    out = weight.new_empty(len(starts))
    features = len(numbers)
    slots = len(grad) * features
    if slots:
        dot_kernel[(slots,)](
            weight.contiguous(), grad.contiguous(), starts, _or(offsets, starts), numbers, columns,
            layout, out, features, len(grad), starts.shape[1], weight.shape[1], chunk, lead,
            grad.shape[1], max(1, weight.numel()), BAGS=offsets is not None, BLOCK=_block(layout),
        )  # fmt: skip
    return out


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer is needed even for what is not read."""
    return other if tensor is None else tensor
