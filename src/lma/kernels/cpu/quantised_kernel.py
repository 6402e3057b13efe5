"""Gather and pooling of a quantised memory, read as it is: 8 or 4 bits, sums in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.add_int8 import add_eight, add_four
from lma.kernels.cpu.mix import inlined, kernel
from lma.kernels.cpu.prefetch import prefetch
from lma.kernels.layout import Column
from lma.kernels.reference.lookup import MEAN

DIM, PRIVATE_DIM = int(Column.DIM), int(Column.PRIVATE_DIM)
AHEAD = 16  # entries whose blocks are on their way
_MEAN = MEAN
_SHIFT, _BIAS = np.uint32(13), np.uint32(112 << 23)
_NORMAL = np.uint32(0x400)
_SMALLEST = np.float32(2.0**-24)


@inlined
def half_to_float(bits: Any) -> Any:
    """The float32 of a non-negative float16, given by its 16 bits."""
    h = np.uint32(bits)
    if h >= _NORMAL:
        return np.uint32((h << _SHIFT) + _BIAS).view(np.float32)
    return np.float32(h) * _SMALLEST


@inlined
def add_bytes(factor: Any, source: Any, start: Any, count: Any, target: Any, place: Any) -> Any:
    """target[place + i] += factor * source[start + i] for i < count."""
    done = count & ~7
    for i in range(0, done, 8):
        add_eight(factor, source, start + i, target, place + i)
    if count & 4:
        add_four(factor, source, start + done, target, place + done)
        done += 4
    for i in range(done, count):
        # Unsigned, as in `runs`: no test for an index that counts from the end.
        target[np.uint64(place + i)] += factor * np.float32(source[np.uint64(start + i)])


@inlined
def add_halves(factor: Any, source: Any, start: Any, count: Any, target: Any, place: Any) -> Any:
    """The same of 4-bit values, which stand plus 8, two to a byte; start is even."""
    for i in range(count):
        byte = np.uint32(source[np.uint64(start + i) >> np.uint64(1)])
        half = (byte >> (np.uint32(i & 1) << np.uint32(2))) & np.uint32(15)
        target[np.uint64(place + i)] += factor * (np.float32(half) - np.float32(8))


@inlined
def add_blocks(
    factor: Any, values: Any, bits: Any, scales: Any, shift: Any, blocks: Any, unit: Any,
    first: Any, count: Any, target: Any, place: Any,
) -> Any:  # fmt: skip
    """Add `count` floats from block `first` on, block after block: each has its group's scale."""
    block = np.int64(first)
    done = 0
    while done < count:
        # Runs go on at the beginning behind the memory's end.
        if block >= blocks:
            block %= blocks
        length = min(unit, count - done)
        scale = half_to_float(scales[np.uint64(block >> shift)])
        if bits == 4:
            add_halves(factor * scale, values, block * unit, length, target, place + done)
        else:
            add_bytes(factor * scale, values, block * unit, length, target, place + done)
        done += unit
        block += 1


@kernel
def pool_range(
    values: Any, bits: Any, scales: Any, shift: Any, starts: Any, offsets: Any, factors: Any,
    numbers: Any, columns: Any, modes: Any, layout: Any, unit: Any, chunk: Any, lead: Any,
    out: Any, width: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Output slots first ... last - 1; see `gather_kernel`.

    Args:
        values: int8 [floats], or two to a byte.
        bits: Of a value, 8 or 4.
        scales: Bits of float16, uint16 [groups].
        shift: Binary logarithm of a group's blocks.
        starts: int32 [entries, pieces], of `lookup.starts`.
        offsets, factors, numbers, columns, modes, layout: As there.
        unit, chunk: Floats of a block and of a chunk.
        out: float32 [batch * width].
    """
    features = numbers.shape[0]
    blocks = values.shape[0] * (8 // bits) // unit
    bags = offsets.shape[0] > 0
    weighted = factors.shape[0] > 0
    batch = (offsets.shape[0] - 1) // features
    for s in range(first, last):
        r = s // features
        f = s - r * features
        low, high = s, s + 1
        if bags:
            low, high = offsets[f * batch + r], offsets[f * batch + r + 1]
        t = numbers[f]
        begin = r * width + columns[f]
        private = layout[t, PRIVATE_DIM]
        stop = begin + layout[t, DIM]
        for i in range(begin, stop):
            out[i] = 0
        for e in range(low, high):
            ahead = e + AHEAD
            if ahead < starts.shape[0]:
                for j in range(starts.shape[1]):
                    prefetch(values, np.int64(starts[ahead, j]) * unit * bits >> 3)
            factor = factors[e] if weighted else np.float32(1)
            place = begin
            if private > 0:
                add_blocks(
                    factor, values, bits, scales, shift, blocks, unit,
                    starts[e, 0], private, out, place,
                )  # fmt: skip
                place += private
            j = lead
            while place < stop:
                count = min(chunk, stop - place)
                add_blocks(
                    factor, values, bits, scales, shift, blocks, unit,
                    starts[e, j], count, out, place,
                )  # fmt: skip
                place += chunk
                j += 1
        if modes[f] == _MEAN and high > low:
            for i in range(begin, stop):
                out[i] /= np.float32(high - low)
