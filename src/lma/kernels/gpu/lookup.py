"""Launchers of the Triton kernels: same names, arguments and results as `reference.lookup`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from lma.kernels.gpu.address_kernel import starts_kernel
from lma.kernels.gpu.facts import facts
from lma.kernels.gpu.pool_kernel import dot_kernel, pool_kernel, scatter_kernel
from lma.kernels.gpu.segment_kernel import sorted_sums
from lma.kernels.gpu.update_kernel import updated
from lma.kernels.reference import lookup as reference
from lma.kernels.reference import touched
from lma.kernels.reference.quantised import Quantised, group_blocks

STARTS = 512  # of one program that finds them, and of how many entries at most
ENTRIES = 128
SIDE = 16  # of one vector's at once
TILE = 2048  # floats of one program that reads or adds them


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
    total, features = len(ids), len(numbers)
    known = facts(layout)
    chunks = min(SIDE, int(triton.next_power_of_2(max(1, pieces - lead))))
    rows = min(ENTRIES, STARTS // chunks)
    # Of bags, `numbers` names the table of every entry, and neighbours are of one table anyway.
    strided = 1 < features < total
    programs = triton.cdiv(total, rows)
    if strided:
        programs = triton.cdiv(total // features, rows) * features
    starts_kernel[(programs,)](
        ids.contiguous(), numbers.contiguous(), layout, seeds, draws, codes,
        fingerprints.view(torch.int64), overflow_keys, out, total, features, pieces, lead,
        draws.shape[1], len(overflow_keys).bit_length(), UNIT=unit, CHUNK=chunk, STRIDE=stride,
        SIGNED=known.signed, MARKED=known.marked, STRIDED=strided, ROWS=rows, CHUNKS=chunks,
    )  # fmt: skip
    return out


class _Tiles(NamedTuple):
    """How the kernels over slots are launched: programs, and arguments by name."""

    grid: tuple[int]
    named: dict[str, Any]


def _tiles(layout: Tensor, slots: int, unit: int, chunk: int, bags: bool) -> _Tiles:
    known = facts(layout)
    block = int(triton.next_power_of_2(max(1, known.most)))
    # Where tables differ, places take more registers.
    rows = max(1, (TILE if known.dim else TILE // 4) // block)
    named = {
        "UNIT": unit, "CHUNK": chunk, "DIM": known.dim, "BAGS": bags, "ROWS": rows, "BLOCK": block
    }  # fmt: skip
    return _Tiles((triton.cdiv(slots, rows),), named)


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
        grid, named = _tiles(layout, slots, unit, chunk, offsets is not None)
        pool_kernel[grid](
            weight.contiguous(), _or(scales, weight), starts, _or(offsets, starts),
            _or(factors, weight), numbers, columns, modes, layout, out, slots, features,
            starts.shape[1], lead, width, max(1, num_blocks * unit), group_blocks(unit) * unit,
            FACTORS=factors is not None, BITS=bits, **named,
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
        rows, values = sorted_sums(grad, starts, offsets, factors, *place).gathered()
        dense = torch.zeros(num_blocks, block_size, dtype=torch.float32, device=grad.device)
        return dense.index_copy_(0, rows, values).to(grad.dtype)
    out = torch.zeros(num_blocks, block_size, dtype=torch.float32, device=grad.device)
    features = len(numbers)
    slots = len(grad) * features
    if slots:
        grid, named = _tiles(layout, slots, block_size, chunk, offsets is not None)
        scatter_kernel[grid](
            grad.contiguous(), starts, _or(offsets, starts), _or(factors, grad), numbers, columns,
            modes, layout, out, slots, features, starts.shape[1], lead, grad.shape[1],
            max(1, out.numel()), FACTORS=factors is not None, **named,
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
    rows, values = sorted_sums(grad, starts, offsets, factors, *place).gathered()
    return rows, values.to(grad.dtype)


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
    """`reference.touched.fused_update`."""
    place = (numbers, columns, modes, layout, chunk, lead, *weight.shape)
    settings = (kind, lr, eps, beta1, beta2)
    if weight.dtype == grad.dtype == torch.float32 and weight.is_contiguous():
        updated(
            weight, state, second, sorted_sums(grad, starts, offsets, factors, *place), *settings
        )
    else:
        wide = torch.promote_types(weight.dtype, torch.float32)
        rows, values = touched_grad(grad.to(wide), starts, offsets, factors, *place)
        touched.apply_update(weight, state, second, rows, values, *settings)


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
        grid, named = _tiles(layout, slots, weight.shape[1], chunk, offsets is not None)
        dot_kernel[grid](
            weight.contiguous(), grad.contiguous(), starts, _or(offsets, starts), numbers, columns,
            layout, out, slots, features, starts.shape[1], lead, grad.shape[1],
            max(1, weight.numel()), **named,
        )  # fmt: skip
    return out


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """What a kernel reads from, contiguous; a pointer is needed even for what is not read."""
    return (other if tensor is None else tensor).contiguous()
