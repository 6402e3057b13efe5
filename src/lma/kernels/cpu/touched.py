"""Launchers of the touched-blocks gradient and of the update in the backward pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lma.kernels.cpu.arrays import array, bag_arrays, scaled
from lma.kernels.cpu.merge_kernel import (
    SHARD_ROWS,
    SLOTS,
    count_merged,
    merge_rows,
    place_merged,
)
from lma.kernels.cpu.threads import num_pieces, run_pieces
from lma.kernels.cpu.touch_kernel import (
    count_distinct,
    count_rows,
    count_touches,
    describe_entries,
    place_rows,
    place_touches,
    sum_buckets,
)
from lma.kernels.cpu.update_kernel import update_buckets
from lma.kernels.layout import Column
from lma.kernels.reference import touched as reference

GRAIN = 4096  # touches below which a second thread costs more than it gives
# Buckets are small enough for what a thread sums to stay in its cache, and few enough for the
# places where touches are written to stay there too; at least so many that threads share them.
BUCKET_BITS, LEAST_BUCKET_BITS = 12, 6
FEWEST_BUCKETS_BITS, MOST_BUCKETS_BITS = 6, 9
MERGED_CHUNKS = 12  # of an entry, from which merging entries saves more than it takes

Pass = Callable[..., None]  # over a piece of the entries: (own counts or cursors, ..., first, last)


class Buckets(NamedTuple):
    """Gradients and their touches in buckets: arguments of the kernels, in their order."""

    grad: Any
    unit: int
    touches: Any
    factors: Any
    lengths: Any
    bounds: Any
    shift: int


def bucket_shift(num_blocks: int) -> int:
    """log2 of the units of one bucket."""
    bits = (max(1, num_blocks) - 1).bit_length()
    wanted = min(BUCKET_BITS, bits - FEWEST_BUCKETS_BITS)
    return max(LEAST_BUCKET_BITS, wanted, bits - MOST_BUCKETS_BITS)


def fill_buckets(
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
    unit: int,
) -> Buckets:
    """Sort all touches into buckets; the same order for any number of threads."""
    entries, pieces = len(starts), num_pieces(len(starts), GRAIN)
    rows, _ = scaled(layout, layout[:0, 0], unit, chunk)
    shift = bucket_shift(num_blocks)
    ragged = bool((layout[:, Column.DIM] % unit).any())
    weighted = factors is not None or (offsets is not None and bool(modes.any()))
    sizes = unit, lead, shift
    flat, width = array(grad).reshape(-1), grad.shape[1]
    cuts = list(itertools.pairwise(entries * i // pieces for i in range(pieces + 1)))
    if offsets is None and not weighted and not ragged and chunk == unit:
        if starts.shape[1] - lead >= MERGED_CHUNKS:
            merged = _merge(flat, width, starts, numbers, columns, rows)
            flat, cuts = merged.sums, merged.cuts
            count, place = _merged_passes(merged, starts.shape[1], rows, *sizes)
        else:
            count, place = _row_passes(starts, numbers, columns, width, rows, *sizes)
    else:
        bags = (*bag_arrays(offsets, factors), array(numbers), array(columns), array(modes))
        slots = entries if offsets is None else len(offsets) - 1
        count, place = _entry_passes(starts, bags, slots, width, rows, *sizes, chunk, num_blocks)
    counts = np.zeros((len(cuts), (num_blocks >> shift) + 1), np.int64)
    _each_piece(count, cuts, counts)
    # Bucket after bucket, and within one the earlier entries first.
    ends = counts.T.reshape(-1).cumsum()
    total = int(ends[-1])
    before = (ends - counts.T.reshape(-1)).reshape(counts.T.shape)
    cursors = np.ascontiguousarray(before.T)
    bounds = np.append(cursors[0], total)
    # From torch, whose memory is warm: NumPy's fresh pages cost more than filling them.
    touches = torch.empty(total, dtype=torch.int64).numpy().view(np.uint64)
    shares = torch.empty(total if weighted else 0).numpy()
    lengths = torch.empty(total if ragged else 0, dtype=torch.int32).numpy()
    _each_piece(place, cuts, cursors, touches, shares, lengths)
    return Buckets(flat, unit, touches, shares, lengths, bounds, shift)


def _each_piece(run: Pass, cuts: list[tuple[int, int]], own: Any, *outputs: Any) -> None:
    def some(first: int, last: int) -> None:
        for i in range(first, last):
            run(own[i], *outputs, *cuts[i])

    run_pieces(some, len(cuts), len(cuts))


class Merged(NamedTuple):
    """Entries left by `merge_rows`, of every piece from its first possible place on."""

    kept: Any
    owners: Any
    sources: Any
    sums: Any
    cuts: list[tuple[int, int]]


def _merge(
    grad: Any, width: int, starts: Tensor, numbers: Tensor, columns: Tensor, rows: Any
) -> Merged:
    """Merge entries that read the same blocks: the same sums for any number of threads."""
    entries, chunks, features = len(starts), starts.shape[1], len(numbers)
    batch = entries // max(1, features)
    each = -(-batch // SHARD_ROWS)  # shards of a feature
    shards = each * features
    pieces = min(num_pieces(entries, GRAIN), max(1, shards))
    merged = Merged(
        torch.empty(entries * chunks, dtype=torch.int32).numpy(),
        torch.empty(entries, dtype=torch.int32).numpy(),
        torch.empty(entries, dtype=torch.int64).numpy(),
        torch.empty(len(grad)).numpy(),
        [(0, 0)] * pieces,
    )
    read = grad, width, array(starts).reshape(-1), chunks, array(numbers), array(columns), rows
    dims = np.diff(read[5])

    def merge(first: int, last: int) -> None:
        for i in range(first, last):
            begin, end = shards * i // pieces, shards * (i + 1) // pieces
            # Nothing before it can take more than all that it reads.
            f = begin // max(1, each)
            inside = min(batch, (begin - f * each) * SHARD_ROWS)
            row = f * batch + inside
            cursor = int(dims[:f].sum()) * batch + (inside * int(dims[f]) if inside else 0)
            left = merge_rows(
                *read, batch, np.empty(SLOTS, np.int32), *merged[:4], row, cursor, begin, end
            )
            merged.cuts[i] = row, row + left

    run_pieces(merge, pieces, pieces)
    return merged


def _merged_passes(
    merged: Merged, chunks: int, rows: Any, unit: int, lead: int, shift: int
) -> tuple[Pass, Pass]:
    """(count, place) of merged entries."""
    read = merged.kept, chunks, merged.owners

    def count(counts: Any, first: int, last: int) -> None:
        count_merged(*read, rows, lead, shift, counts, first, last)

    def place(cursors: Any, touches: Any, _: Any, __: Any, first: int, last: int) -> None:
        place_merged(*read, merged.sources, rows, unit, lead, shift, cursors, touches, first, last)

    return count, place


def _row_passes(
    starts: Tensor,
    numbers: Tensor,
    columns: Tensor,
    width: int,
    rows: Any,
    unit: int,
    lead: int,
    shift: int,
) -> tuple[Pass, Pass]:
    """(count, place) where every slot has one entry and every touch is a whole chunk."""
    read = array(starts).reshape(-1), starts.shape[1], array(numbers)

    bags = array(columns), width, rows, unit, lead, shift

    def count(counts: Any, first: int, last: int) -> None:
        count_rows(*read, rows, lead, shift, counts, first, last)

    def place(cursors: Any, touches: Any, _: Any, __: Any, first: int, last: int) -> None:
        place_rows(*read, *bags, cursors, touches, first, last)

    return count, place


def _entry_passes(
    starts: Tensor,
    bags: tuple[Any, Any, Any, Any, Any],
    slots: int,
    width: int,
    rows: Any,
    unit: int,
    lead: int,
    shift: int,
    chunk: int,
    num_blocks: int,
) -> tuple[Pass, Pass]:
    """(count, place) for entries of any bags."""
    entries = len(starts)
    places = torch.empty(entries, dtype=torch.int64).numpy()
    scales = torch.empty(entries).numpy()
    tables = torch.empty(entries, dtype=torch.int32).numpy()
    run_pieces(
        lambda a, b: describe_entries(*bags, rows, width, places, scales, tables, a, b),
        slots,
        num_pieces(entries, GRAIN),
    )
    fixed = (array(starts), tables, rows, unit, chunk, lead, num_blocks, shift)

    def count(counts: Any, first: int, last: int) -> None:
        count_touches(*fixed, counts, first, last)

    def place(
        cursors: Any, touches: Any, factors: Any, lengths: Any, first: int, last: int
    ) -> None:
        place_touches(*fixed, places, scales, cursors, touches, factors, lengths, first, last)

    return count, place


def _covered(grad: Tensor) -> bool:
    """Whether the kernels take these sizes and dtypes; they number floats of `grad` in 31 bits."""
    return grad.dtype == torch.float32 and grad.numel() < 1 << 31


def _cuts(bounds: Any, pieces: int) -> list[int]:
    """Buckets cut into pieces of about equally many touches."""
    wanted = [int(bounds[-1]) * i // pieces for i in range(1, pieces)]
    inner = np.searchsorted(bounds[:-1], wanted).tolist()
    return [0, *inner, len(bounds) - 1]


def _unseen(shift: int) -> Any:
    return np.full(1 << shift, -1, np.int32)


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
    """`reference.touched_grad`: the same blocks, ascending; the same bits for any threads."""
    if not _covered(grad):
        return reference.touched_grad(
            grad, starts, offsets, factors, numbers, columns, modes, layout, chunk, lead,
            num_blocks, block_size,
        )  # fmt: skip
    b = fill_buckets(
        grad, starts, offsets, factors, numbers, columns, modes, layout, chunk, lead,
        num_blocks, block_size,
    )  # fmt: skip
    pieces = num_pieces(len(b.touches), GRAIN)
    cuts = _cuts(b.bounds, pieces)
    distinct = np.zeros(len(b.bounds) - 1, np.int64)

    def count(first: int, last: int) -> None:
        for piece in range(first, last):
            count_distinct(
                b.touches, b.bounds, b.shift, _unseen(b.shift), distinct, cuts[piece],
                cuts[piece + 1],
            )  # fmt: skip

    run_pieces(count, pieces, pieces)
    ends = distinct.cumsum() - distinct
    indices = torch.empty(int(distinct.sum()), dtype=torch.int64)
    values = torch.empty(len(indices), block_size)
    at, out = indices.numpy(), values.view(-1).numpy()

    def add(first: int, last: int) -> None:
        for piece in range(first, last):
            sum_buckets(*b, _unseen(b.shift), ends, at, out, cuts[piece], cuts[piece + 1])

    run_pieces(add, pieces, pieces)
    return indices, values


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
    """`reference.fused_update` without a gradient of the memory's size or of its touched part."""
    if weight.dtype != torch.float32 or not _covered(grad):
        reference.fused_update(
            weight, state, second, grad, starts, offsets, factors, numbers, columns, modes,
            layout, chunk, lead, kind, lr, eps, beta1, beta2,
        )  # fmt: skip
        return
    num_blocks, unit = weight.shape
    b = fill_buckets(
        grad, starts, offsets, factors, numbers, columns, modes, layout, chunk, lead,
        num_blocks, unit,
    )  # fmt: skip
    pieces = num_pieces(len(b.touches), GRAIN)
    cuts = _cuts(b.bounds, pieces)
    largest = int(min(1 << b.shift, np.diff(b.bounds).max(initial=0)))
    fixed = (
        kind, weight.detach().view(-1).numpy(), state.view(-1).numpy(), second.view(-1).numpy(),
        np.float32(lr), np.float32(eps), np.float32(beta1), np.float32(beta2),
        *b,
    )  # fmt: skip

    def update(first: int, last: int) -> None:
        for piece in range(first, last):
            values = torch.empty(largest * unit).numpy()
            found = np.empty(largest, np.int32)
            update_buckets(*fixed, _unseen(b.shift), values, found, cuts[piece], cuts[piece + 1])

    run_pieces(update, pieces, pieces)
