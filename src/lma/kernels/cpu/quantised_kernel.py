"""Gather and pooling of a quantised memory, read as it is: 8 or 4 bits, sums in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.address_kernel import (
    CHUNKS,
    DIM,
    PRIVATE_DIM,
    ask_signatures,
    tile_starts,
)
from lma.kernels.cpu.gather_kernel import MEAN
from lma.kernels.cpu.int8_vectors import (
    add_eight,
    add_eight_halves,
    add_four,
    add_four_halves,
    put_eight,
    put_eight_halves,
    put_four,
    put_four_halves,
)
from lma.kernels.cpu.mix import inlined, kernel
from lma.kernels.cpu.prefetch import prefetch

CACHED = 1 << 17  # bytes that stay in a core's cache without being asked for
_1, _3, _4 = np.uint64(1), np.uint64(3), np.uint64(4)
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
def put_bytes(scale: Any, source: Any, s: Any, count: Any, target: Any, t: Any, add: Any) -> Any:
    """target[t + i] = (with `add`, +=) scale * source[s + i] for i < count; s, t are uint64."""
    done = count & ~7
    for i in range(0, done, 8):
        step = np.uint64(i)
        if add:
            add_eight(scale, source, s + step, target, t + step)
        else:
            put_eight(scale, source, s + step, target, t + step)
    s, t = s + np.uint64(done), t + np.uint64(done)
    if count & 4:
        if add:
            add_four(scale, source, s, target, t)
        else:
            put_four(scale, source, s, target, t)
        s, t = s + _4, t + _4
    for i in range(count & 3):
        value = scale * np.float32(source[s + np.uint64(i)])
        target[t + np.uint64(i)] = target[t + np.uint64(i)] + value if add else value


@inlined
def put_halves(scale: Any, source: Any, s: Any, count: Any, target: Any, t: Any, add: Any) -> Any:
    """The same of 4-bit values, which stand plus 8, two to a byte; s is even."""
    s = s >> _1
    done = count & ~7
    for i in range(0, done, 8):
        step = np.uint64(i)
        if add:
            add_eight_halves(scale, source, s + (step >> _1), target, t + step)
        else:
            put_eight_halves(scale, source, s + (step >> _1), target, t + step)
    s, t = s + np.uint64(done >> 1), t + np.uint64(done)
    if count & 4:
        if add:
            add_four_halves(scale, source, s, target, t)
        else:
            put_four_halves(scale, source, s, target, t)
        s, t = s + np.uint64(2), t + _4
    for i in range(count & 3):
        byte = np.uint32(source[s + np.uint64(i >> 1)])
        half = (byte >> (np.uint32(i & 1) << np.uint32(2))) & np.uint32(15)
        value = scale * (np.float32(half) - np.float32(8))
        target[t + np.uint64(i)] = target[t + np.uint64(i)] + value if add else value


@inlined
def put_blocks(
    factor: Any, values: Any, bits: Any, scales: Any, shift: Any, blocks: Any, unit: Any,
    first: Any, count: Any, target: Any, place: Any, add: Any,
) -> Any:  # fmt: skip
    """Put `count` floats from block `first` on, block after block: each has its group's scale."""
    block = np.int64(first)
    done = 0
    while done < count:
        # Runs go on at the beginning behind the memory's end.
        if block >= blocks:
            block %= blocks
        length = min(unit, count - done)
        scale = factor * half_to_float(scales[np.uint64(block) >> np.uint64(shift)])
        source, t = np.uint64(block * unit), np.uint64(place + done)
        if bits == 4:
            put_halves(scale, values, source, length, target, t, add)
        else:
            put_bytes(scale, values, source, length, target, t, add)
        done += unit
        block += 1


@inlined
def put_vector(
    factor: Any, values: Any, bits: Any, scales: Any, shift: Any, blocks: Any, unit: Any,
    starts: Any, row: Any, t: Any, rows: Any, chunk: Any, lead: Any, out: Any, place: Any,
    add: Any,
) -> Any:  # fmt: skip
    """Put one entry's vector, whose starts are in row `row`, at out[place]."""
    private, stop = rows[t, PRIVATE_DIM], place + rows[t, DIM]
    if private > 0:
        start = starts[row, np.uint64(0)]
        put_blocks(
            factor, values, bits, scales, shift, blocks, unit, start, private, out, place, add
        )
        place += private
    for j in range(rows[t, CHUNKS]):
        start = starts[row, np.uint64(lead + j)]
        count = min(chunk, stop - place)
        put_blocks(factor, values, bits, scales, shift, blocks, unit, start, count, out, place, add)
        place += chunk


@inlined
def put_chunks(
    values: Any, scales: Any, shift: Any, unit: Any, starts: Any, row: Any, chunks: Any,
    lead: Any, out: Any, place: Any,
) -> Any:  # fmt: skip
    """One vector of whole int8 chunks, each one block; all but `unit` and `chunks` are uint64."""
    for j in range(chunks):
        block = np.uint64(starts[row, lead + np.uint64(j)])
        scale = half_to_float(scales[block >> shift])
        put_bytes(scale, values, block * np.uint64(unit), unit, out, place, False)
        place += np.uint64(unit)


@kernel
def put_tile(
    values: Any, bits: Any, scales: Any, shift: Any, blocks: Any, factors: Any, numbers: Any,
    columns: Any, rows: Any, unit: Any, chunk: Any, lead: Any, starts: Any, out: Any, width: Any,
    first: Any, last: Any,
) -> Any:  # fmt: skip
    """Slots of one entry each; slot s reads row s - first of `starts`."""
    features = numbers.shape[0]
    for s in range(first, min(first + features, last)):
        f = s % features
        t = np.uint64(numbers[np.uint64(f)])
        chunks, dim = rows[t, CHUNKS], rows[t, DIM]
        begin = s // features * width + columns[np.uint64(f)]
        plain = bits == 8 and chunk == unit and factors.shape[0] == 0
        plain = plain and rows[t, PRIVATE_DIM] == 0 and dim == chunks * chunk
        ahead, move = np.uint64(lead), np.uint64(shift)
        for i in range((last - s + features - 1) // features):
            row, place = np.uint64(s - first + i * features), begin + i * width
            at = np.uint64(place)
            # The usual sizes as constants, for the compiler to write the inner loops out.
            if plain and unit == 1:
                put_chunks(values, scales, move, 1, starts, row, chunks, ahead, out, at)
            elif plain and unit == 4:
                put_chunks(values, scales, move, 4, starts, row, chunks, ahead, out, at)
            elif plain and unit == 8:
                put_chunks(values, scales, move, 8, starts, row, chunks, ahead, out, at)
            elif plain and unit == 16:
                put_chunks(values, scales, move, 16, starts, row, chunks, ahead, out, at)
            else:
                e = np.uint64(s + i * features)
                factor = factors[e] if factors.shape[0] > 0 else np.float32(1)
                put_vector(
                    factor, values, bits, scales, shift, blocks, unit, starts, row, t, rows,
                    chunk, lead, out, place, False,
                )  # fmt: skip


@inlined
def ask_scales(scales: Any, shift: Any, starts: Any, count: Any) -> Any:
    """Ask for the scales of the blocks in the first `count` rows of `starts`."""
    for row in range(count):
        for j in range(starts.shape[1]):
            block = np.int64(starts[np.uint64(row), np.uint64(j)])
            if block >= 0:
                prefetch(scales, block >> shift)


@kernel
def quantised_range(
    values: Any, bits: Any, scales: Any, shift: Any, ids: Any, offsets: Any, factors: Any,
    numbers: Any, columns: Any, modes: Any, rows: Any, seeds: Any, states: Any, draws: Any,
    codes: Any, fingerprints: Any, overflow: Any, unit: Any, chunk: Any, stride: Any, lead: Any,
    starts: Any, out: Any, width: Any, tile: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Output slots first ... last - 1; see `gather_kernel.lookup_range`.

    Args:
        values: int8 [floats], or two to a byte.
        bits: Of a value, 8 or 4.
        scales: Bits of float16, uint16 [groups].
        shift: Binary logarithm of a group's blocks.
        starts: Scratch, int32 [tile, pieces].
    """
    features = numbers.shape[0]
    blocks = values.shape[0] * (8 // bits) // unit
    early = values.shape[0] > CACHED
    # In elements of `values`.
    width_of = unit * bits >> 3, chunk * bits >> 3
    if offsets.shape[0] == 0:
        ask_signatures(ids, numbers, rows, codes, fingerprints, first, min(first + tile, last))
        for begin in range(first, last, tile):
            end = min(begin + tile, last)
            ask_signatures(ids, numbers, rows, codes, fingerprints, end, min(end + tile, last))
            tile_starts(
                ids, numbers, rows, seeds, states, draws, codes, fingerprints, overflow, stride,
                lead, starts, begin, values, *width_of, early, starts[0, :0], False, begin,
                end,
            )  # fmt: skip
            if early:
                ask_scales(scales, shift, starts, end - begin)
            put_tile(
                values, bits, scales, shift, blocks, factors, numbers, columns, rows, unit, chunk,
                lead, starts, out, width, begin, end,
            )  # fmt: skip
        return
    batch = (offsets.shape[0] - 1) // features
    for s in range(first, last):
        r = s // features
        f = s - r * features
        t = np.uint64(numbers[f])
        own = numbers[f : f + 1]
        low, high = offsets[f * batch + r], offsets[f * batch + r + 1]
        begin = r * width + columns[f]
        stop = begin + rows[t, DIM]
        for i in range(begin, stop):
            out[i] = 0
        for entry in range(low, high, tile):
            end = min(entry + tile, high)
            ask_signatures(ids, own, rows, codes, fingerprints, entry, end)
            tile_starts(
                ids, own, rows, seeds, states, draws, codes, fingerprints, overflow, stride, lead,
                starts, entry, values, *width_of, early, starts[0, :0], False, entry,
                end,
            )  # fmt: skip
            for e in range(entry, end):
                factor = factors[np.uint64(e)] if factors.shape[0] > 0 else np.float32(1)
                put_vector(
                    factor, values, bits, scales, shift, blocks, unit, starts,
                    np.uint64(e - entry), t, rows, chunk, lead, out, begin, True,
                )  # fmt: skip
        if modes[f] == MEAN and high > low:
            for i in range(begin, stop):
                out[i] /= np.float32(high - low)
