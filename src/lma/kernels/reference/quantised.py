"""A memory in 8 or 4 bits for inference: one scale per group of neighbouring blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lma.kernels.reference.lookup import pool_entries, read_entries, starts, tables_of_entries

GROUP_FLOATS = 64
# By bits; symmetric: -128 and -8 are not used, so that -w is stored as well as w.
LARGEST = {8: 127, 4: 7}


class Quantised(NamedTuple):
    """float = value * scale of its group; a group is `group_blocks(block_size)` rows.

    Attributes:
        values: int8 [num_blocks, block_size]; or, of 4 bits, uint8 [num_blocks, block_size / 2]:
            two values a byte, each plus 8, the first in the lower half.
        scales: float16 [groups].
    """

    values: Tensor
    scales: Tensor

    @property
    def bits(self) -> int:
        """Of a value: 8 or 4."""
        return bits_of(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        """[num_blocks, block_size]."""
        return self.values.shape[0], self.values.shape[1] * 8 // self.bits

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device


def bits_of(values: Tensor) -> int:
    """Bits of one value of `Quantised.values`, which their dtype tells."""
    return 4 if values.dtype == torch.uint8 else 8


def group_blocks(block_size: int) -> int:
    """Blocks that share a scale: a power of two, of `GROUP_FLOATS` floats at most, at least one."""
    return 1 << (max(1, GROUP_FLOATS // max(1, block_size)).bit_length() - 1)


def num_groups(num_blocks: int, block_size: int) -> int:
    """Scales of a memory; the last group may be shorter."""
    return -(-num_blocks // group_blocks(block_size))


def quantise(weight: Tensor, bits: int = 8) -> Quantised:
    """The nearest memory of 8 or 4 bits: value = round(w / scale), ties to even.

    The scale is max |w| / 127, of 4 bits max |w| / 7.

    The scale is rounded *up* to float16, so that no value is cut off and

        |w - value * scale| <= scale / 2

    Args:
        weight: Floats [num_blocks, block_size].
        bits: 8 or 4; 4 need an even block_size.

    Raises:
        TypeError: Not a matrix of floats.
        ValueError: Other bits; an odd block_size with 4; a weight that is not finite, or too
            large for a float16 scale (127 * 65504, of 4 bits 7 * 65504).
    """
    if bits not in LARGEST:
        raise ValueError(f"quantise: bits must be 8 or 4, found {bits}")
    if not weight.is_floating_point() or weight.dim() != 2:
        raise TypeError(
            f"quantise: weight must be floats [num_blocks, block_size], found {weight.dtype} "
            f"{list(weight.shape)}"
        )
    if bits == 4 and weight.shape[1] % 2:
        raise ValueError(
            f"quantise: 4 bits need blocks of an even number of floats, found {weight.shape[1]}"
        )
    stored = _rounded(weight, bits)
    if not weight.is_meta and not bool(stored.scales.isfinite().all()):
        raise ValueError(
            f"quantise: a weight is NaN, infinite or beyond {LARGEST[bits]} * 65504, the largest "
            "that float16 scales can hold"
        )
    return stored


def _rounded(weight: Tensor, bits: int) -> Quantised:
    """`quantise` of a weight that needs no check: no value is looked at, so it can be traced."""
    num_blocks, block_size = weight.shape
    group, groups = group_blocks(block_size), num_groups(num_blocks, block_size)
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    wide = F.pad(wide, (0, 0, 0, groups * group - num_blocks)).view(groups, group * block_size)
    scales = _at_least(wide.abs().amax(1) / LARGEST[bits])
    # A group of zeros has scale 0, and its values must be 0 too.
    divisor = torch.where(scales > 0, scales, 1).to(wide.dtype).unsqueeze(1)
    values = (wide / divisor).round_().to(torch.int8)
    values = values.view(groups * group, block_size)[:num_blocks]
    return Quantised(values if bits == 8 else _packed(values), scales)


def _packed(values: Tensor) -> Tensor:
    """Values -7 ... 7, two to a byte: uint8 [num_blocks, block_size / 2]."""
    shifted = (values + 8).to(torch.uint8)
    return shifted[:, ::2] | shifted[:, 1::2] << 4


def fake_quantise(weight: Tensor, bits: int) -> Tensor:
    """The floats of `quantise(weight, bits)`, differentiable: for training with the rounding in.

    The gradient passes straight through (Bengio et al. 2013, arXiv 1308.3432), so that small steps
    add up in `weight` until a value moves.
    """
    rounded = dequantise(*_rounded(weight.detach(), bits)).to(weight.dtype)
    # Exactly the rounded floats, with the weight's gradient.
    return rounded + (weight - weight.detach())


def _at_least(x: Tensor) -> Tensor:
    """The smallest float16 that is not below x >= 0."""
    near = x.half()
    # Neighbouring floats of one sign are neighbouring integers.
    return (near.view(torch.int16) + (near < x).to(torch.int16)).view(torch.float16)


def dequantise(values: Tensor, scales: Tensor) -> Tensor:
    """The floats that a quantised memory stands for: float32 [num_blocks, block_size]."""
    return read_rows(Quantised(values, scales), torch.arange(len(values), device=values.device))


def read_rows(weight: Quantised, rows: Tensor) -> Tensor:
    """Blocks by number: float32 [..., block_size]."""
    scales = weight.scales[rows // group_blocks(weight.shape[1])]
    values = weight.values[rows]
    if weight.bits == 4:
        values = torch.stack([values & 15, values >> 4], -1).flatten(-2).to(torch.int8) - 8
    return values.float() * scales.float().unsqueeze(-1)


def read_floats(weight: Quantised, places: Tensor) -> Tensor:
    """Floats by their place in the flat memory: float32 [...]."""
    block_size = weight.shape[1]
    scales = weight.scales[places // (group_blocks(block_size) * block_size)]
    if weight.bits == 4:
        halves = weight.values.reshape(-1)[places // 2]
        values = (halves >> 4 * (places % 2).to(torch.uint8) & 15).to(torch.int8) - 8
    else:
        values = weight.values.reshape(-1)[places]
    return values.float() * scales.float()


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
    """`reference.lookup` of a quantised memory: float32 [batch, width], not differentiable."""
    memory = Quantised(values, scales)
    blocks, unit = memory.shape
    tables = tables_of_entries(numbers, offsets, len(ids))
    found = starts(
        ids, tables, layout, seeds, draws, codes, fingerprints, overflow_keys, unit, chunk,
        stride, lead, pieces,
    )  # fmt: skip
    entries = read_entries(
        found, offsets, numbers, columns, layout, chunk, lead, unit, blocks * unit
    )
    floats = read_floats(memory, entries.places)
    slots = len(ids) if offsets is None else len(offsets) - 1
    return pool_entries(floats, entries, factors, modes, columns, slots, width)
