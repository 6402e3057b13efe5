"""Launcher of the lookup in a quantised memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lma.kernels.cpu.address_kernel import tile_size
from lma.kernels.cpu.arrays import array, bag_arrays, scaled
from lma.kernels.cpu.lookup import GRAIN
from lma.kernels.cpu.quantised_kernel import quantised_range
from lma.kernels.cpu.threads import num_pieces, run_pieces
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
    rows, states = scaled(layout, seeds, unit, chunk)
    slots = len(ids) if offsets is None else len(offsets) - 1
    out = torch.empty(slots // len(numbers), width)
    tile = tile_size(len(numbers), pieces)
    before = (
        array(values).reshape(-1), bits, array(scales.view(torch.uint16)),
        group_blocks(unit).bit_length() - 1, array(ids), *bag_arrays(offsets, factors),
        array(numbers), array(columns), array(modes), rows, array(seeds).view(np.uint64), states,
        array(draws), array(codes), array(fingerprints), array(overflow_keys), unit, chunk,
        stride // unit, lead,
    )  # fmt: skip
    flat = out.numpy().reshape(-1)

    def run(first: int, last: int) -> None:
        places = np.empty((tile, pieces), np.int32)
        quantised_range(*before, places, flat, width, tile, first, last)

    run_pieces(run, slots, num_pieces(out.numel() + len(ids) * pieces, GRAIN))
    return out
