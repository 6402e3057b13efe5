"""Launchers of the lookup and its dense gradient: the work cut in pieces, other dtypes sent on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lma.kernels.cpu.address_kernel import starts_range, tile_size
from lma.kernels.cpu.arrays import NO_FLOATS, NO_ROWS, array, bag_arrays, scaled
from lma.kernels.cpu.gather_kernel import lookup_range
from lma.kernels.cpu.scatter_kernel import dot_range, scatter_range, sum_shards
from lma.kernels.cpu.threads import num_pieces, run_pieces
from lma.kernels.cpu.twin_kernel import MEMO
from lma.kernels.reference import lookup as reference

GRAIN = 4096  # floats below which a second thread costs more than it gives
MAX_SHARDS = 8
TWIN_CHUNKS = 8  # of an entry, from which copying a vector is cheaper than computing it
NO_MEMORY: tuple[Any, Any] = np.empty(0, np.int64), NO_ROWS


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
    out = torch.empty(len(ids), pieces, dtype=torch.int32)
    if not len(ids):
        return out
    rows, states = scaled(layout, seeds, unit, chunk)
    fixed = (
        array(ids), array(numbers), rows, array(seeds).view(np.uint64), states, array(draws),
        array(codes), array(fingerprints), array(overflow_keys), stride // unit, lead,
    )  # fmt: skip
    target, tile = out.numpy(), tile_size(len(numbers), pieces)

    def run(first: int, last: int) -> None:
        starts_range(*fixed, target, NO_FLOATS, NO_ROWS, tile, first, last)

    run_pieces(run, len(ids), num_pieces(len(ids) * (pieces + 4), GRAIN))
    return out


def memory_of(features: int) -> tuple[Any, Any]:
    """A thread's memory of tokens met: (ids, rows), as `find_twins` takes them."""
    size = features * MEMO
    return np.empty(size, np.int64), np.full(size, -1, np.int32)


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
    """(`reference.pool_starts`, and with `keep` the starts, else none) in one pass."""
    unit = weight.shape[1]
    if weight.dtype != torch.float32:
        tables = reference.tables_of_entries(numbers, offsets, len(ids))
        found = starts(
            ids, tables, layout, seeds, draws, codes, fingerprints, overflow_keys, unit, chunk,
            stride, lead, pieces,
        )  # fmt: skip
        out = reference.pool_starts(
            weight, found, offsets, factors, numbers, columns, modes, layout, chunk, lead, width
        )
        return out, found if keep else found.new_empty(0, pieces)
    features = len(numbers)
    slots = len(ids) if offsets is None else len(offsets) - 1
    out = torch.empty(slots // features, width)
    kept = torch.empty(len(ids) if keep else 0, pieces, dtype=torch.int32)
    rows, states = scaled(layout, seeds, unit, chunk)
    before = (
        array(weight).reshape(-1), array(ids), *bag_arrays(offsets, factors), array(numbers),
        array(columns), array(modes), rows, array(seeds).view(np.uint64), states,
        array(draws), array(codes), array(fingerprints), array(overflow_keys), unit, chunk,
        stride // unit, lead,
    )  # fmt: skip
    target, flat = kept.numpy(), out.numpy().reshape(-1)
    tile = tile_size(features, pieces)
    twinned = offsets is None and factors is None and pieces - lead >= TWIN_CHUNKS

    def run(first: int, last: int) -> None:
        places = target if keep else np.empty((tile, pieces), np.int32)
        tokens, seen = memory_of(features) if twinned else NO_MEMORY
        twins = np.empty(tile if twinned else 0, np.int32)
        lookup_range(*before, places, flat, width, keep, tile, tokens, seen, twins, first, last)

    run_pieces(run, slots, num_pieces(out.numel() + len(ids) * pieces, GRAIN))
    return out, kept


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
    """`reference.lookup_grad`; the same bits for any number of threads.

    The slots are cut into a number of shards that only the sizes decide; every shard is added
    up in order into a gradient of its own, and the shards are summed in order.
    """
    if grad.dtype != torch.float32:
        return reference.lookup_grad(
            grad, starts, offsets, factors, numbers, columns, modes, layout, chunk, lead,
            num_blocks, block_size,
        )  # fmt: skip
    size = num_blocks * block_size
    slots = len(grad) * len(numbers)
    shards = num_shards(len(starts) * max(1, grad.shape[1] // max(1, len(numbers))), size)
    # From torch, whose memory is warm: fresh zero pages cost more than the sums.
    shard_grads = torch.zeros(shards, size)
    parts = shard_grads.numpy()
    rows, _ = scaled(layout, layout[:0, 0], block_size, chunk)
    fixed = (
        array(grad).reshape(-1), grad.shape[1], array(starts), *bag_arrays(offsets, factors),
        array(numbers), array(columns), array(modes), rows, block_size, chunk, lead,
    )  # fmt: skip

    def run(first: int, last: int) -> None:
        for shard in range(first, last):
            bounds = slots * shard // shards, slots * (shard + 1) // shards
            scatter_range(*fixed, parts[shard], *bounds)

    run_pieces(run, shards, num_pieces(shards, 1))
    if shards == 1:
        return shard_grads.view(num_blocks, block_size)
    out = torch.empty(num_blocks, block_size)
    flat = out.numpy().reshape(-1)
    run_pieces(
        lambda first, last: sum_shards(parts, flat, first, last), size, num_pieces(size, GRAIN)
    )
    return out


def num_shards(added: int, size: int) -> int:
    """Shards of a gradient of `size` floats to which `added` floats are added."""
    return max(1, min(MAX_SHARDS, added // max(1, size), added // GRAIN))


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
    if weight.dtype != torch.float32 or grad.dtype != torch.float32:
        return reference.factors_grad(
            weight, grad, starts, offsets, numbers, columns, layout, chunk, lead
        )
    out = torch.empty(len(starts))
    rows, _ = scaled(layout, layout[:0, 0], weight.shape[1], chunk)
    fixed = (
        array(weight).reshape(-1), array(grad).reshape(-1), grad.shape[1], array(starts),
        bag_arrays(offsets, None)[0], array(numbers), array(columns), rows, weight.shape[1], chunk,
        lead, out.numpy(),
    )  # fmt: skip
    slots = len(grad) * len(numbers)
    run_pieces(
        lambda first, last: dot_range(*fixed, first, last), slots, num_pieces(grad.numel(), GRAIN)
    )
    return out
