"""Token id -> signature -> starts, one token at a time: the integers of `reference.addresses`.

Addresses are kept in *units*, the rows of the memory: every start is a whole number of them, and
they fit in 31 bits however large the memory is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.kernels.cpu.mix import combine, inlined, kernel, mix64, reduce_range, token_key
from lma.kernels.cpu.prefetch import prefetch
from lma.kernels.layout import Column, Kind
from lma.kernels.reference.addresses import LANES, SECOND_BUCKET

# Plain integers, since Numba does not know enumerations of integers by value.
SALT, CODE_SALT, KIND, NUM_SIGNED = (int(c) for c in list(Column)[:4])
CODE_BASE, NUM_CODES, CODE_BITS = (int(c) for c in list(Column)[4:7])
BUCKET_BASE, NUM_BUCKETS, OVERFLOW_BASE, NUM_OVERFLOW = (int(c) for c in list(Column)[7:11])
DIM, PRIVATE_BASE, NUM_PRIVATE, PRIVATE_DIM = (int(c) for c in list(Column)[11:15])
CODED_BASE, CODED_BLOCKS, HASHED_BASE, HASHED_BLOCKS = (int(c) for c in list(Column)[15:19])
COLUMNS = len(Column)
CHUNKS, PRIVATE_UNITS, ROW_BYTES = COLUMNS, COLUMNS + 1, COLUMNS + 2  # added by `scale_rows`
AHEAD = 16  # tokens whose signatures are on their way
UNSIGNED, RANDOM, WHOLE = int(Kind.UNSIGNED), int(Kind.RANDOM), int(Kind.WHOLE)
_LANES = LANES
_SECOND_BUCKET = np.uint64(SECOND_BUCKET)
_LOW = np.uint64(0xFFFF)
_ONE, _TWO, _THREE, _SEVEN = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(7)
_BYTE, _TWO_BYTES = np.uint64(8), np.uint64(16)


@kernel
def scale_rows(layout: Any, seeds: Any, unit: Any, chunk: Any, rows: Any, states: Any) -> Any:
    """Layout rows with bases in units, and what follows from them.

    Args:
        layout: int64 [tables, columns].
        rows: Written, int64 [tables, columns + 3].
        states: Written, uint64 [tables, chunks]: combine(seed_j, CODE_SALT).
    """
    for t in range(layout.shape[0]):
        for c in range(COLUMNS):
            rows[t, c] = layout[t, c]
        rows[t, PRIVATE_BASE] //= unit
        rows[t, CODED_BASE] //= unit
        rows[t, HASHED_BASE] //= unit
        rows[t, CHUNKS] = (layout[t, DIM] - layout[t, PRIVATE_DIM] + chunk - 1) // chunk
        rows[t, PRIVATE_UNITS] = layout[t, PRIVATE_DIM] // unit
        rows[t, ROW_BYTES] = (layout[t, NUM_CODES] * layout[t, CODE_BITS] + 7) >> 3
        for j in range(seeds.shape[0]):
            states[t, j] = combine(seeds[j], np.uint64(layout[t, CODE_SALT]))


@inlined
def find_slot(token: Any, key: Any, rows: Any, t: Any, fingerprints: Any, overflow: Any) -> Any:
    """Slot of a token within its table, or -1."""
    num_signed = rows[t, NUM_SIGNED]
    if num_signed >= 0:
        return token if 0 <= token < num_signed else np.int64(-1)
    buckets = rows[t, NUM_BUCKETS]
    # The exact list wins: its keys may share fingerprints with others.
    low = rows[t, OVERFLOW_BASE]
    end = low + rows[t, NUM_OVERFLOW]
    high = end
    signed_key = np.int64(key)
    while low < high:
        middle = (low + high) >> 1
        if overflow[middle] < signed_key:
            low = middle + 1
        else:
            high = middle
    if low < end and overflow[low] == signed_key:
        return buckets * _LANES + low - rows[t, OVERFLOW_BASE]
    if buckets > 0:
        wanted = key & _LOW
        if wanted == 0:
            wanted = _ONE
        size = np.uint64(buckets)
        bucket = np.int64(reduce_range(key, size))
        for _ in range(2):
            for lane in range(_LANES):
                entry = fingerprints[rows[t, BUCKET_BASE] + bucket, lane]
                if (np.uint64(entry) & _LOW) == wanted:
                    return bucket * _LANES + lane
            bucket = np.int64(reduce_range(mix64(key ^ _SECOND_BUCKET), size))
    return np.int64(-1)


@inlined
def read_code(codes: Any, base: Any, bits: Any, which: Any) -> Any:
    """Code number `which` of the signature that begins at byte `base`; all uint64."""
    if bits == _BYTE:
        return np.uint64(codes[base + which])
    bit = which * bits
    byte = base + (bit >> _THREE)
    word = np.uint64(codes[byte]) | np.uint64(codes[byte + _ONE]) << _BYTE
    word |= np.uint64(codes[byte + _TWO]) << _TWO_BYTES
    return (word >> (bit & _SEVEN)) & ((_ONE << bits) - _ONE)


@inlined
def write_starts(
    token: Any, t: Any, rows: Any, seeds: Any, states: Any, draws: Any, codes: Any,
    fingerprints: Any, overflow: Any, stride: Any, lead: Any, out: Any, e: Any,
) -> Any:  # fmt: skip
    """Starts of one token in units: row `e` of `out`, int32 [entries, pieces]; unused ones -1.

    Args:
        token: Its id.
        t: Its table.
        rows, states: Of `scale_rows`.
        stride: Units from block to block.
        lead: 1: column 0 is the private part's.
    """
    chunks = rows[t, CHUNKS]
    if lead:
        if rows[t, PRIVATE_DIM] > 0:
            count = rows[t, NUM_PRIVATE]
            slot = token if 0 <= token < count else count
            out[e, 0] = rows[t, PRIVATE_BASE] + slot * rows[t, PRIVATE_UNITS]
        else:
            out[e, 0] = -1
    for j in range(lead + chunks, out.shape[1]):
        out[e, j] = -1
    if chunks == 0:
        return
    kind = rows[t, KIND]
    base = rows[t, HASHED_BASE]
    if kind == WHOLE:
        for j in range(chunks):
            out[e, lead + j] = base + (token * chunks + j) * stride
        return
    key = token_key(np.uint64(rows[t, SALT]), np.uint64(token))
    slot = np.int64(-1)
    if kind != UNSIGNED:
        slot = find_slot(token, key, rows, t, fingerprints, overflow)
    if slot < 0:
        size = np.uint64(rows[t, HASHED_BLOCKS])
        for j in range(chunks):
            block = reduce_range(combine(seeds[j], key), size)
            out[e, lead + j] = base + np.int64(block) * stride
        return
    base = rows[t, CODED_BASE]
    size = np.uint64(rows[t, CODED_BLOCKS])
    num_codes = rows[t, NUM_CODES]
    bits = np.uint64(rows[t, CODE_BITS])
    first = np.uint64(rows[t, CODE_BASE] + slot * rows[t, ROW_BYTES])
    if kind == RANDOM:
        power = draws.shape[1]
        for j in range(chunks):
            h = states[t, j]
            for k in range(power):
                h = combine(h, read_code(codes, first, bits, np.uint64(draws[j, k])))
            out[e, lead + j] = base + np.int64(reduce_range(h, size)) * stride
    else:
        # which = j * num_codes // chunks, without a division.
        which, rest = 0, 0
        for j in range(chunks):
            code = np.int64(read_code(codes, first, bits, np.uint64(which)))
            out[e, lead + j] = base + (j * np.int64(size) + code) * stride
            rest += num_codes
            while rest >= chunks:
                rest -= chunks
                which += 1


@inlined
def prefetch_signature(
    token: Any, t: Any, rows: Any, codes: Any, fingerprints: Any
) -> Any:  # fmt: skip
    """Ask for a token's codes, or for the bucket where a fingerprint index looks first."""
    num_signed = rows[t, NUM_SIGNED]
    if 0 <= token < num_signed:
        prefetch(codes, rows[t, CODE_BASE] + token * rows[t, ROW_BYTES])
    elif num_signed < 0 and rows[t, NUM_BUCKETS] > 0:
        key = token_key(np.uint64(rows[t, SALT]), np.uint64(token))
        bucket = np.int64(reduce_range(key, np.uint64(rows[t, NUM_BUCKETS])))
        prefetch(fingerprints, (rows[t, BUCKET_BASE] + bucket) * _LANES)


@kernel
def starts_range(
    ids: Any, numbers: Any, rows: Any, seeds: Any, states: Any, draws: Any, codes: Any,
    fingerprints: Any, overflow: Any, stride: Any, lead: Any, out: Any, shift: Any, weight: Any,
    unit: Any, early: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Starts of entries first ... last - 1, of tables numbers[e % len(numbers)].

    Entry e fills row e - shift of `out`. With `early` the floats of `weight` behind each start are
    asked for at once, so that they arrive while the next entries are hashed.
    """
    features = numbers.shape[0]
    f = first % features
    ahead = first
    g = f
    for e in range(first, last):
        # A signature is one random read of a large array, and the hash has to wait for it.
        while ahead < min(e + AHEAD, last):
            if rows[numbers[g], KIND] != UNSIGNED:
                prefetch_signature(ids[ahead], numbers[g], rows, codes, fingerprints)
            ahead += 1
            g += 1
            if g == features:
                g = 0
        write_starts(
            ids[e], numbers[f], rows, seeds, states, draws, codes, fingerprints, overflow,
            stride, lead, out, e - shift,
        )  # fmt: skip
        if early:
            for j in range(out.shape[1]):
                prefetch(weight, np.int64(out[e - shift, j]) * unit)
        f += 1
        if f == features:
            f = 0
