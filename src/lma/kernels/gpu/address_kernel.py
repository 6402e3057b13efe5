"""Token id -> signature -> starts on a GPU: the integers of `reference.addresses`.

A program takes a block of entries, one per lane. Where the entries of a row follow one another (one
id per feature), lanes take one feature of neighbouring rows: what they read of a table is then the
same address for all of them, and read once.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton evaluates annotations, and knows none but its own.

from __future__ import annotations

import triton
import triton.language as tl

from lma.hashing import GOLDEN, MIX_1, MIX_2
from lma.kernels.layout import Column, Kind
from lma.kernels.reference.addresses import LANES, SECOND_BUCKET

_GOLDEN, _MIX_1, _MIX_2 = (tl.constexpr(c) for c in (GOLDEN, MIX_1, MIX_2))
_LANES, _SECOND = tl.constexpr(LANES), tl.constexpr(SECOND_BUCKET)
COLUMNS = tl.constexpr(len(Column))
SALT, CODE_SALT, KIND = (tl.constexpr(int(c)) for c in list(Column)[:3])
NUM_SIGNED, CODE_BASE, NUM_CODES, CODE_BITS = (tl.constexpr(int(c)) for c in list(Column)[3:7])
BUCKET_BASE, NUM_BUCKETS = (tl.constexpr(int(c)) for c in list(Column)[7:9])
OVERFLOW_BASE, NUM_OVERFLOW = (tl.constexpr(int(c)) for c in list(Column)[9:11])
DIM, PRIVATE_BASE, NUM_PRIVATE, PRIVATE_DIM = (tl.constexpr(int(c)) for c in list(Column)[11:15])
CODED_BASE, CODED_BLOCKS = (tl.constexpr(int(c)) for c in list(Column)[15:17])
HASHED_BASE, HASHED_BLOCKS = (tl.constexpr(int(c)) for c in list(Column)[17:19])
_RANDOM, _LEARNED, _WHOLE = (tl.constexpr(int(k)) for k in (Kind.RANDOM, Kind.LEARNED, Kind.WHOLE))


@triton.jit
def mix64(x):
    """splitmix64's finaliser of uint64."""
    x = (x ^ (x >> 30)) * tl.full((), _MIX_1, tl.uint64)
    x = (x ^ (x >> 27)) * tl.full((), _MIX_2, tl.uint64)
    return x ^ (x >> 31)


@triton.jit
def combine(state, value):
    """Hash of `value` under `state`, uint64."""
    return mix64((state ^ value) + tl.full((), _GOLDEN, tl.uint64))


@triton.jit
def reduce_range(h, size):
    """Map uint64 hashes to [0, size), size < 2^31: int64."""
    return (((h >> 32) * size.to(tl.uint64)) >> 32).to(tl.int64)


@triton.jit
def read_code(codes, signature, bits, which, mask):
    """Code number `which` of the signature that begins at that byte: uint64."""
    bit = which * bits
    byte = codes + signature + (bit >> 3)
    word = tl.load(byte, mask=mask, other=0).to(tl.int64)
    word |= tl.load(byte + 1, mask=mask, other=0).to(tl.int64) << 8
    word |= tl.load(byte + 2, mask=mask, other=0).to(tl.int64) << 16
    one = tl.full((), 1, tl.int64)
    return ((word >> (bit & 7)) & ((one << bits) - 1)).to(tl.uint64)


@triton.jit
def find_by_fingerprint(key, row, fingerprints, overflow, steps, mask):
    """Slot of every lane's key, or -1; `steps` halvings search the overflow list.

    `fingerprints` are read as int64, four to a word.
    """
    buckets = tl.load(row + NUM_BUCKETS, mask=mask, other=0)
    bucket_base = tl.load(row + BUCKET_BASE, mask=mask, other=0)
    slot = tl.full(key.shape, -1, tl.int64)
    wanted = (key & 0xFFFF).to(tl.int64)
    wanted = tl.where(wanted == 0, 1, wanted)
    first = reduce_range(key, buckets)
    second = reduce_range(mix64(key ^ tl.full((), _SECOND, tl.uint64)), buckets)
    inside = mask & (buckets > 0)
    # From the last choice to the first: what is written last wins.
    for choice in tl.static_range(2):
        bucket = second if choice == 0 else first
        for half in tl.static_range(2):
            at = fingerprints + (bucket_base + bucket) * 2 + 1 - half
            word = tl.load(at, mask=inside, other=0)
            for back in tl.static_range(4):
                entry = (word >> (16 * (3 - back))) & 0xFFFF
                lane = 4 * (1 - half) + 3 - back
                slot = tl.where(inside & (entry == wanted), bucket * _LANES + lane, slot)
    base = tl.load(row + OVERFLOW_BASE, mask=mask, other=0)
    end = base + tl.load(row + NUM_OVERFLOW, mask=mask, other=0)
    low, high = base, end
    signed = key.to(tl.int64, bitcast=True)
    for _ in range(steps):
        searching = mask & (low < high)
        middle = (low + high) >> 1
        value = tl.load(overflow + middle, mask=searching, other=0)
        low = tl.where(searching & (value < signed), middle + 1, low)
        high = tl.where(searching & (value >= signed), middle, high)
    hit = mask & (low < end)
    hit = hit & (tl.load(overflow + low, mask=hit, other=0) == signed)
    return tl.where(hit, buckets * _LANES + low - base, slot)


@triton.jit
def lanes(entries, features, BLOCK: tl.constexpr, STRIDED: tl.constexpr):
    """(entry of every lane, its feature, whether it is one) of this program; `entries` in all.

    STRIDED: program p takes feature p % features of BLOCK rows, else BLOCK entries in a row.
    """
    p = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    if STRIDED:
        feature = p % features + tl.zeros((BLOCK,), tl.int64)
        e = (p // features * BLOCK + lane) * features + feature
    else:
        e = p * BLOCK + lane
        feature = e % features
    return e, feature, e < entries


@triton.jit
def find_slot(
    token, key, kind, row, fingerprints, overflow, steps, mask,
    SIGNED: tl.constexpr, MARKED: tl.constexpr,
):  # fmt: skip
    """Slot of every lane's token within its table's signatures, or -1."""
    slot = tl.full(token.shape, -1, tl.int64)
    if SIGNED:
        num_signed = tl.load(row + NUM_SIGNED, mask=mask, other=0)
        coded = mask & ((kind == _RANDOM) | (kind == _LEARNED))
        slot = tl.where(coded & (token >= 0) & (token < num_signed), token, slot)
        if MARKED:
            marked = coded & (num_signed < 0)
            found = find_by_fingerprint(key, row, fingerprints, overflow, steps, marked)
            slot = tl.where(marked, found, slot)
    return slot


@triton.jit
def token_key(token, row, mask):
    """The 64-bit key of every lane's token."""
    salt = tl.load(row + SALT, mask=mask, other=0).to(tl.uint64, bitcast=True)
    return mix64(token.to(tl.uint64, bitcast=True) * tl.full((), _GOLDEN, tl.uint64) + salt)


@triton.jit
def constant(row, column: tl.constexpr, mask):
    """A column of every lane's layout row, [lanes, 1]."""
    return tl.load(row + column, mask=mask, other=0)[:, None]


@triton.jit(do_not_specialize=["total", "steps"])
def starts_kernel(
    ids, numbers, layout, seeds, draws, codes, fingerprints,
    overflow, out, total, features, pieces, lead, power, steps,
    UNIT: tl.constexpr, CHUNK: tl.constexpr, STRIDE: tl.constexpr, SIGNED: tl.constexpr,
    MARKED: tl.constexpr, STRIDED: tl.constexpr, ROWS: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Starts of ROWS entries in units, int32 [entries, pieces]; -1 where there is none.

    CHUNKS of a vector are found at once: what they read and write lies side by side.
    """
    e, feature, mask = lanes(total, features, ROWS, STRIDED)
    token = tl.load(ids + e, mask=mask, other=0)
    row = layout + tl.load(numbers + feature, mask=mask, other=0) * COLUMNS
    kind = tl.load(row + KIND, mask=mask, other=0)
    private = tl.load(row + PRIVATE_DIM, mask=mask, other=0)
    key = token_key(token, row, mask)
    if lead:
        count = tl.load(row + NUM_PRIVATE, mask=mask, other=0)
        own = tl.where((token >= 0) & (token < count), token, count)
        private_base = tl.load(row + PRIVATE_BASE, mask=mask, other=0)
        first = tl.where(private > 0, (private_base + own * private) // UNIT, -1)
        tl.store(out + e * pieces, first.to(tl.int32), mask=mask)
    slot = find_slot(token, key, kind, row, fingerprints, overflow, steps, mask, SIGNED, MARKED)
    chunks = (constant(row, DIM, mask) - private[:, None] + CHUNK - 1) // CHUNK
    hashed_base = constant(row, HASHED_BASE, mask)
    hashed_blocks = constant(row, HASHED_BLOCKS, mask)
    keys, kinds, tokens, place = key[:, None], kind[:, None], token[:, None], e[:, None] * pieces
    if SIGNED:
        signed = (slot >= 0)[:, None]
        bits, codes_each = constant(row, CODE_BITS, mask), constant(row, NUM_CODES, mask)
        signature = slot[:, None] * ((codes_each * bits + 7) >> 3) + constant(row, CODE_BASE, mask)
        salt = constant(row, CODE_SALT, mask).to(tl.uint64, bitcast=True)
        coded_base = constant(row, CODED_BASE, mask)
        coded_blocks = constant(row, CODED_BLOCKS, mask)
        random, learned = signed & (kinds == _RANDOM), signed & (kinds == _LEARNED)
        divisor = tl.maximum(chunks, 1).to(tl.int32)
    for first_chunk in range(0, pieces - lead, CHUNKS):
        j = first_chunk + tl.arange(0, CHUNKS)[None, :]
        some = j < pieces - lead
        seed = tl.load(seeds + j, mask=some, other=0).to(tl.uint64, bitcast=True)
        block = reduce_range(combine(seed, keys), hashed_blocks)
        block = tl.where(kinds == _WHOLE, tokens * chunks + j, block)
        base = hashed_base
        if SIGNED:
            state = combine(seed, salt)
            for k in range(power):
                which = tl.load(draws + j * power + k, mask=some, other=0).to(tl.int64)
                code = read_code(codes, signature, bits, which, random & some)
                state = combine(state, code)
            coded = reduce_range(state, coded_blocks)
            which = (j * codes_each.to(tl.int32) // divisor).to(tl.int64)
            code = read_code(codes, signature, bits, which, learned & (j < chunks)).to(tl.int64)
            coded = tl.where(kinds == _LEARNED, j * coded_blocks + code, coded)
            block = tl.where(signed, coded, block)
            base = tl.where(signed, coded_base, hashed_base)
        start = tl.where(j < chunks, (base + block * STRIDE) // UNIT, -1)
        tl.store(out + place + lead + j, start.to(tl.int32), mask=mask[:, None] & some)
