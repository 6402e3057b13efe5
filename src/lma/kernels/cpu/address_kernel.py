"""Token id -> signature -> starts: the integers of `reference.addresses`.

A tile of entries is done table after table, so that a table's constants stay in registers and
every branch goes the same way many times; the signatures of the next tile are asked for meanwhile.

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
UNSIGNED, RANDOM = int(Kind.UNSIGNED), int(Kind.RANDOM)
LEARNED, WHOLE = int(Kind.LEARNED), int(Kind.WHOLE)
LINE = 16  # floats of a cache line
_MOST_TILE, _TILE_STARTS, _LEAST_TILE = 256, 4096, 16
_LANES = LANES
_SECOND_BUCKET = np.uint64(SECOND_BUCKET)
_LOW = np.uint64(0xFFFF)
_ZERO, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)
_THREE, _SEVEN = np.uint64(3), np.uint64(7)
_BYTE, _TWO_BYTES = np.uint64(8), np.uint64(16)


@kernel
def scale_rows(layout: Any, seeds: Any, unit: Any, chunk: Any, rows: Any, states: Any) -> Any:
    """Layout rows with bases in units, and what follows from them.

    Args:
        layout: int64 [tables, columns].
        rows: Written, int64 [tables, columns + 3].
        states: Written, uint64 [tables, chunks]: combine(seed_j, CODE_SALT); for learned codes
            the number of the code that chunk j reads, j * num_codes // chunks.
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
            if layout[t, KIND] == LEARNED:
                states[t, j] = np.uint64(j * layout[t, NUM_CODES] // max(1, rows[t, CHUNKS]))
            else:
                states[t, j] = combine(seeds[j], np.uint64(layout[t, CODE_SALT]))


@inlined
def find_slot(key: Any, rows: Any, t: Any, fingerprints: Any, overflow: Any) -> Any:
    """Slot within table t of the token with this key, by its fingerprint; or -1."""
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
def hashed_chunks(
    key: Any, chunks: Any, base: Any, size: Any, stride: Any, seeds: Any, out: Any, row: Any,
    lead: Any,
) -> Any:  # fmt: skip
    """Chunks of a token without a signature; all integers but `chunks` are uint64."""
    for j in range(chunks):
        block = reduce_range(combine(seeds[np.uint64(j)], key), size)
        out[row, lead + np.uint64(j)] = base + block * stride


@inlined
def random_chunks(
    first: Any, bits: Any, chunks: Any, base: Any, size: Any, stride: Any, states: Any, t: Any,
    draws: Any, codes: Any, out: Any, row: Any, lead: Any,
) -> Any:  # fmt: skip
    """Chunks of the random codes that begin at byte `first`; all but `chunks` are uint64."""
    # Bytes drawn in pairs, the usual case, without loops and tests inside.
    pairs = draws.shape[1] == 2 and bits == _BYTE
    for j in range(chunks):
        c = np.uint64(j)
        h = states[t, c]
        if pairs:
            h = combine(h, np.uint64(codes[first + np.uint64(draws[c, _ZERO])]))
            h = combine(h, np.uint64(codes[first + np.uint64(draws[c, _ONE])]))
        else:
            for k in range(draws.shape[1]):
                which = np.uint64(draws[c, np.uint64(k)])
                h = combine(h, read_code(codes, first, bits, which))
        out[row, lead + c] = base + reduce_range(h, size) * stride


@inlined
def learned_chunks(
    first: Any, bits: Any, chunks: Any, base: Any, size: Any, stride: Any, states: Any, t: Any,
    codes: Any, out: Any, row: Any, lead: Any,
) -> Any:  # fmt: skip
    """Chunks of learned codes: chunk j reads its own codebook."""
    for j in range(chunks):
        code = read_code(codes, first, bits, states[t, np.uint64(j)])
        out[row, lead + np.uint64(j)] = base + code * stride
        base += size * stride


@inlined
def private_starts(
    ids: Any, entry: Any, step: Any, count: Any, t: Any, rows: Any, out: Any, row: Any,
    weight: Any, unit: Any, early: Any,
) -> Any:  # fmt: skip
    """Column 0 of `out`: starts of the private parts of `count` entries of one table."""
    slots, units = rows[t, NUM_PRIVATE], rows[t, PRIVATE_UNITS]
    base = rows[t, PRIVATE_BASE]
    for _ in range(count):
        token = ids[entry]
        slot = token if 0 <= token < slots else slots
        start = base + slot * units if units > 0 else np.int64(-1)
        out[row, _ZERO] = start
        if early:
            prefetch(weight, start * unit)
        entry += step
        row += step


@inlined
def table_starts(
    ids: Any, entry: Any, step: Any, count: Any, t: Any, rows: Any, seeds: Any, states: Any,
    draws: Any, codes: Any, fingerprints: Any, overflow: Any, stride: Any, lead: Any, out: Any,
    row: Any, weight: Any, unit: Any, chunk: Any, early: Any, twins: Any, twin: Any, f: Any,
    keep: Any,
) -> Any:  # fmt: skip
    """Semantic starts of entries `entry`, `entry + step`, ... of table t, in rows `row`, ...

    Args:
        entry, step, row, stride, lead, twin: uint64.
        count: Entries.
        twins: Of `find_twins`, from number `twin` on, or empty: they copy their starts with
            `keep`, from row twin * step + f, or leave them out.
    """
    chunks, kind = rows[t, CHUNKS], rows[t, KIND]
    salt = np.uint64(rows[t, SALT])
    by_rank, num_signed = rows[t, NUM_SIGNED] >= 0, np.uint64(rows[t, NUM_SIGNED])
    code_base, row_bytes = np.uint64(rows[t, CODE_BASE]), np.uint64(rows[t, ROW_BYTES])
    bits = np.uint64(rows[t, CODE_BITS])
    coded, coded_blocks = np.uint64(rows[t, CODED_BASE]), np.uint64(rows[t, CODED_BLOCKS])
    hashed, hashed_blocks = np.uint64(rows[t, HASHED_BASE]), np.uint64(rows[t, HASHED_BLOCKS])
    twinned = twins.shape[0] > 0
    for _ in range(count):
        if twinned:
            other = twins[twin]
            twin += step
            if other >= 0:
                if keep:
                    source = np.uint64(other) * step + np.uint64(f)
                    for j in range(chunks):
                        out[row, lead + np.uint64(j)] = out[source, lead + np.uint64(j)]
                entry += step
                row += step
                continue
        token = ids[entry]
        if kind == WHOLE:
            for j in range(chunks):
                own = np.uint64(token * chunks + j)
                out[row, lead + np.uint64(j)] = hashed + own * stride
        else:
            slot = np.int64(-1)
            key = token_key(salt, np.uint64(token))
            if kind != UNSIGNED:
                if by_rank:
                    # A negative id is a large unsigned one.
                    slot = token if np.uint64(token) < num_signed else np.int64(-1)
                else:
                    slot = find_slot(key, rows, t, fingerprints, overflow)
            if slot < 0:
                hashed_chunks(key, chunks, hashed, hashed_blocks, stride, seeds, out, row, lead)
            else:
                first = code_base + np.uint64(slot) * row_bytes
                if kind == RANDOM:
                    random_chunks(
                        first, bits, chunks, coded, coded_blocks, stride, states, t, draws, codes,
                        out, row, lead,
                    )  # fmt: skip
                else:
                    learned_chunks(
                        first, bits, chunks, coded, coded_blocks, stride, states, t, codes, out,
                        row, lead,
                    )  # fmt: skip
        if early:
            for j in range(chunks):
                place = np.int64(out[row, lead + np.uint64(j)]) * unit
                for line in range(0, chunk, LINE):
                    prefetch(weight, place + line)
        entry += step
        row += step


@kernel
def tile_starts(
    ids: Any, numbers: Any, rows: Any, seeds: Any, states: Any, draws: Any, codes: Any,
    fingerprints: Any, overflow: Any, stride: Any, lead: Any, out: Any, shift: Any, weight: Any,
    unit: Any, chunk: Any, early: Any, twins: Any, keep: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """Starts in units of entries first ... last - 1, of tables numbers[e % len(numbers)].

    Args:
        rows, states: Of `scale_rows`.
        stride: Units from block to block.
        lead: 1: column 0 is the private part's.
        out: int32 [entries, pieces]: entry e fills row e - shift; unused columns get -1.
        weight, unit, chunk: The memory, and in its elements a unit and a chunk: with `early` what
            lies behind each start is asked for at once, to arrive while the next are hashed.
        twins: Of `find_twins` for these entries, or empty.
        keep: The starts of twins are wanted too, and `shift` is 0.
    """
    features = numbers.shape[0]
    step = np.uint64(features)
    for e in range(first, min(first + features, last)):
        t = np.uint64(numbers[np.uint64(e % features)])
        count = (last - e + features - 1) // features
        row = np.uint64(e - shift)
        if lead:
            private_starts(ids, np.uint64(e), step, count, t, rows, out, row, weight, unit, early)
        for i in range(count):
            for j in range(lead + rows[t, CHUNKS], out.shape[1]):
                out[row + np.uint64(i) * step, np.uint64(j)] = -1
        if rows[t, CHUNKS] > 0:
            table_starts(
                ids, np.uint64(e), step, count, t, rows, seeds, states, draws, codes,
                fingerprints, overflow, np.uint64(stride), np.uint64(lead), out, row, weight,
                unit, chunk, early, twins, np.uint64(e - first), e % features, keep,
            )  # fmt: skip


@kernel
def ask_signatures(
    ids: Any, numbers: Any, rows: Any, codes: Any, fingerprints: Any, first: Any, last: Any
) -> Any:  # fmt: skip
    """Ask for the codes of entries first ... last - 1, or for where an index looks first.

    A signature is one random read of a large array, and the hash has to wait for it.
    """
    features = numbers.shape[0]
    step = np.uint64(features)
    for e in range(first, min(first + features, last)):
        t = np.uint64(numbers[np.uint64(e % features)])
        if rows[t, KIND] == UNSIGNED or rows[t, KIND] == WHOLE:
            continue
        num_signed, entry = np.uint64(rows[t, NUM_SIGNED]), np.uint64(e)
        base, row_bytes = np.uint64(rows[t, CODE_BASE]), np.uint64(rows[t, ROW_BYTES])
        salt, buckets = np.uint64(rows[t, SALT]), np.uint64(rows[t, NUM_BUCKETS])
        for _ in range((last - e + features - 1) // features):
            token = np.uint64(ids[entry])
            if rows[t, NUM_SIGNED] >= 0:
                prefetch(codes, np.int64(base + min(token, num_signed) * row_bytes))
            elif buckets > 0:
                bucket = np.int64(reduce_range(token_key(salt, token), buckets))
                prefetch(fingerprints, (rows[t, BUCKET_BASE] + bucket) * _LANES)
            entry += step


@kernel
def starts_range(
    ids: Any, numbers: Any, rows: Any, seeds: Any, states: Any, draws: Any, codes: Any,
    fingerprints: Any, overflow: Any, stride: Any, lead: Any, out: Any, nothing: Any,
    no_twins: Any, tile: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """`tile_starts` of entries first ... last - 1, in tiles of `tile` entries."""
    ask_signatures(ids, numbers, rows, codes, fingerprints, first, min(first + tile, last))
    for begin in range(first, last, tile):
        end = min(begin + tile, last)
        ask_signatures(ids, numbers, rows, codes, fingerprints, end, min(end + tile, last))
        tile_starts(
            ids, numbers, rows, seeds, states, draws, codes, fingerprints, overflow, stride, lead,
            out, 0, nothing, 0, 0, False, no_twins, False, begin, end,
        )  # fmt: skip


def tile_size(features: int, pieces: int) -> int:
    """Entries of a tile: whole rows where they fit; what it reads stays in a core's cache."""
    most = min(_MOST_TILE, max(_LEAST_TILE, _TILE_STARTS // max(1, pieces)))
    return most - most % features if 0 < features <= most else most
