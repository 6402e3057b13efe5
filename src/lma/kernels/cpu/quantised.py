"""Launcher of the lookup in a quantised memory."""

from __future__ import annotations

import torch
from torch import Tensor

from lma.kernels.cpu.arrays import array, bag_arrays
from lma.kernels.cpu.lookup import GRAIN, starts
from lma.kernels.cpu.quantised_kernel import pool_range
from lma.kernels.cpu.threads import num_pieces, run_pieces
from lma.kernels.reference.lookup import tables_of_entries
from lma.kernels.reference.quantised import bits_of, group_blocks


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
    bits = bits_of(values)
    unit = values.shape[1] * 8 // bits
    tables = tables_of_entries(numbers, offsets, len(ids))
    found = starts(
        ids, tables, layout, seeds, draws, codes, fingerprints, overflow_keys, unit, chunk,
        stride, lead, pieces,
    )  # fmt: skip
    slots = len(ids) if offsets is None else len(offsets) - 1
    out = torch.empty(slots // len(numbers), width)
    fixed = (
        array(values).reshape(-1), bits, array(scales.view(torch.uint16)),
        group_blocks(unit).bit_length() - 1, found.numpy(), *bag_arrays(offsets, factors),
        array(numbers), array(columns), array(modes), array(layout), unit, chunk, lead,
        out.numpy().reshape(-1), width,
    )  # fmt: skip
    run_pieces(
        lambda first, last: pool_range(*fixed, first, last),
        slots,
        num_pieces(out.numel() + found.numel(), GRAIN),
    )
    return out
