"""A memory in int8 for inference: one scale per group of neighbouring blocks, in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lma.kernels.reference.lookup import pool_entries, read_entries, starts, tables_of_entries

GROUP_FLOATS = 64
LARGEST = 127  # symmetric: -128 is not used, so that -w is stored as well as w


class Quantised(NamedTuple):
    """float = value * scale of its group; a group is `group_blocks(block_size)` rows.

    Attributes:
        values: int8 [num_blocks, block_size].
        scales: float16 [groups].
    """

    values: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the values: [num_blocks, block_size]."""
        return self.values.shape

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device


def group_blocks(block_size: int) -> int:
    """Blocks that share a scale: a power of two, of `GROUP_FLOATS` floats at most, at least one."""
    return 1 << (max(1, GROUP_FLOATS // max(1, block_size)).bit_length() - 1)


def num_groups(num_blocks: int, block_size: int) -> int:
    """Scales of a memory; the last group may be shorter."""
    return -(-num_blocks // group_blocks(block_size))


def quantise(weight: Tensor) -> Quantised:
    """The nearest int8 memory: value = round(w / scale), ties to even, scale = max |w| / 127.

    The scale is rounded *up* to float16, so that no value is cut off and

        |w - value * scale| <= scale / 2

    Args:
        weight: Floats [num_blocks, block_size].

    Raises:
        TypeError: Not a matrix of floats.
        ValueError: A weight that is not finite, or too large for a float16 scale (8.3e6).
    """
    if not weight.is_floating_point() or weight.dim() != 2:
        raise TypeError(
            f"quantise: weight must be floats [num_blocks, block_size], found {weight.dtype} "
            f"{list(weight.shape)}"
        )
    num_blocks, block_size = weight.shape
    group, groups = group_blocks(block_size), num_groups(num_blocks, block_size)
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    wide = F.pad(wide, (0, 0, 0, groups * group - num_blocks)).view(groups, group * block_size)
    scales = _at_least(wide.abs().amax(1) / LARGEST)
    if not scales.is_meta and not bool(scales.isfinite().all()):
        raise ValueError(
            "quantise: a weight is NaN, infinite or beyond 127 * 65504, the largest that float16 "
            "scales can hold"
        )
    # A group of zeros has scale 0, and its values must be 0 too.
    divisor = torch.where(scales > 0, scales, 1).to(wide.dtype).unsqueeze(1)
    values = (wide / divisor).round_().to(torch.int8)
    return Quantised(values.view(groups * group, block_size)[:num_blocks], scales)


def _at_least(x: Tensor) -> Tensor:
    """The smallest float16 that is not below x >= 0."""
    near = x.half()
    # Neighbouring floats of one sign are neighbouring integers.
    return (near.view(torch.int16) + (near < x).to(torch.int16)).view(torch.float16)


def dequantise(values: Tensor, scales: Tensor) -> Tensor:
    """The floats that an int8 memory stands for: float32 [num_blocks, block_size]."""
    return read_rows(Quantised(values, scales), torch.arange(len(values), device=values.device))


def read_rows(weight: Quantised, rows: Tensor) -> Tensor:
    """Blocks by number: float32 [..., block_size]."""
    scales = weight.scales[rows // group_blocks(weight.shape[1])]
    return weight.values[rows].float() * scales.float().unsqueeze(-1)


def read_floats(weight: Quantised, places: Tensor) -> Tensor:
    """Floats by their place in the flat memory: float32 [...]."""
    block_size = weight.shape[1]
    scales = weight.scales[places // (group_blocks(block_size) * block_size)]
    return weight.values.reshape(-1)[places].float() * scales.float()


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
    """`reference.lookup` of an int8 memory: float32 [batch, width], not differentiable."""
    unit = values.shape[1]
    tables = tables_of_entries(numbers, offsets, len(ids))
    found = starts(
        ids, tables, layout, seeds, draws, codes, fingerprints, overflow_keys, unit, chunk,
        stride, lead, pieces,
    )  # fmt: skip
    entries = read_entries(
        found, offsets, numbers, columns, layout, chunk, lead, unit, values.numel()
    )
    floats = read_floats(Quantised(values, scales), entries.places)
    slots = len(ids) if offsets is None else len(offsets) - 1
    return pool_entries(floats, entries, factors, modes, columns, slots, width)
