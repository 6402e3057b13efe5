"""Token id -> signature -> places in memory, in plain torch (DESIGN section 5, Allocation).

Every function broadcasts over tokens: `ids` and the layout rows that go with them have the same
leading shape. All integers are the 64 bits of `lma.hashing`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lma.hashing import combine_t, mix64_t, reduce_range_t, token_keys_t
from lma.kernels.layout import Column, Kind

LANES = 8  # fingerprints per bucket
EMPTY = 0  # the fingerprint of an empty lane
# Second bucket's own hash of a key; any odd constant would do, changing it is a format change.
SECOND_BUCKET = 0x5851F42D4C957F2D


def fingerprint_of(keys: Tensor) -> Tensor:
    """The 16-bit fingerprint, 1..65535, of every key: its low bits, which no bucket uses."""
    low = keys & 0xFFFF
    return torch.where(low == EMPTY, torch.ones_like(low), low)


def candidate_buckets(keys: Tensor, num_buckets: Tensor | int) -> tuple[Tensor, Tensor]:
    """The two buckets of [0, num_buckets) in which a key may lie."""
    return (
        reduce_range_t(keys, num_buckets),
        reduce_range_t(mix64_t(keys ^ SECOND_BUCKET), num_buckets),
    )


def find_fingerprint(
    keys: Tensor,
    bucket_base: Tensor,
    num_buckets: Tensor,
    fingerprints: Tensor,
    overflow_keys: Tensor,
    overflow_base: Tensor,
    num_overflow: Tensor,
) -> Tensor:
    """Slot within its table of every key, or -1, through the fingerprint index.

    A key lies in one of two buckets of eight 16-bit fingerprints; the slot is the lane's number.
    Keys whose fingerprint would be ambiguous among signed tokens stand, with all their 64 bits,
    in the table's stretch of `overflow_keys` and have the slots behind the buckets' lanes.

    Args:
        keys: int64 [...].
        bucket_base, num_buckets, overflow_base, num_overflow: The table's, int64 [...].
        fingerprints: int16 [buckets, 8], all tables.
        overflow_keys: int64 [overflow], all tables, ascending within each table.

    Returns:
        int64 [...].
    """
    wanted = fingerprint_of(keys)
    slot = torch.full_like(keys, -1)
    lanes = torch.arange(LANES, device=keys.device)
    if len(fingerprints):
        for bucket in reversed(candidate_buckets(keys, num_buckets)):
            row = fingerprints[(bucket_base + bucket).clamp_(max=len(fingerprints) - 1)].long()
            match = (row & 0xFFFF) == wanted.unsqueeze(-1)
            lane = torch.where(match, lanes, LANES).amin(-1)
            found = (lane < LANES) & (num_buckets > 0)
            slot = torch.where(found, bucket * LANES + lane, slot)
    for entry in range(len(overflow_keys)):
        inside = (overflow_base <= entry) & (entry < overflow_base + num_overflow)
        hit = inside & (keys == overflow_keys[entry])
        slot = torch.where(hit, num_buckets * LANES + entry - overflow_base, slot)
    return slot


def read_codes(codes: Tensor, base: Tensor, slot: Tensor, row: Tensor, which: Tensor) -> Tensor:
    """Code number `which` of the signature in `slot`, broadcast: int64 [...].

    A signature is `num_codes * code_bits` bits, little-endian, padded to whole bytes.

    Args:
        codes: uint8 [bytes + 2], all tables; two spare bytes let 16 bits be read anywhere.
        base: First byte of the table's signatures.
        slot: Slot within the table, >= 0.
        row: Layout rows, int64 [..., columns].
        which: Number of the code.
    """
    bits = row[..., Column.CODE_BITS]
    row_bytes = (row[..., Column.NUM_CODES] * bits + 7) >> 3
    bit = which * bits
    byte = base + slot * row_bytes + (bit >> 3)
    word = codes[byte].long() | codes[byte + 1].long() << 8 | codes[byte + 2].long() << 16
    return (word >> (bit & 7)) & ((1 << bits) - 1)


def find_slots(
    ids: Tensor, keys: Tensor, row: Tensor, fingerprints: Tensor, overflow_keys: Tensor
) -> Tensor:
    """Slot within its table of every token, or -1 for an unsigned one: int64 [...]."""
    num_signed = row[..., Column.NUM_SIGNED]
    prefix = torch.where((ids >= 0) & (ids < num_signed), ids, torch.full_like(ids, -1))
    if not len(fingerprints) and not len(overflow_keys):
        return prefix
    by_key = find_fingerprint(
        keys,
        row[..., Column.BUCKET_BASE],
        row[..., Column.NUM_BUCKETS],
        fingerprints,
        overflow_keys,
        row[..., Column.OVERFLOW_BASE],
        row[..., Column.NUM_OVERFLOW],
    )
    return torch.where(num_signed < 0, by_key, prefix)


def chunk_starts(
    ids: Tensor,
    row: Tensor,
    num_chunks: int,
    block_size: int,
    kinds: frozenset[int],
    seeds: Tensor,
    draws: Tensor,
    codes: Tensor,
    fingerprints: Tensor,
    overflow_keys: Tensor,
) -> Tensor:
    """First float of every chunk of every token: int64 [..., num_chunks].

    Random codes (SCMA, Desai et al. 2021, section 4): chunk j of a signed token reads block
    `range(hash(seed_j, the codes that chunk j draws), CODED_BLOCKS)`, so two tokens share it
    exactly when those codes agree, apart from chance. Learned codes: `codebook_j + code_j`.
    An unsigned token: `range(hash(seed_j, key), HASHED_BLOCKS)`; in a whole table
    `id * chunks + j`.

    Args:
        ids: Token ids, int64 [...].
        row: Layout row of each token's table, int64 [..., columns], broadcastable.
        num_chunks: Chunks of the semantic part.
        block_size: Floats from one block to the next.
        kinds: The `Kind`s that occur among all tables; others are not computed.
        seeds: State of chunk j's hash function, int64 [>= num_chunks].
        draws: Which codes a chunk draws, uint8 [rows, power].
        codes: uint8 [bytes + 2].
        fingerprints: int16 [buckets, 8].
        overflow_keys: int64 [overflow].
    """
    keys = token_keys_t(row[..., Column.SALT], ids).unsqueeze(-1)
    row = row.unsqueeze(-2)
    seeds = seeds[:num_chunks]
    block = reduce_range_t(combine_t(seeds, keys), row[..., Column.HASHED_BLOCKS])
    kind, base = row[..., Column.KIND], row[..., Column.CODE_BASE]
    if Kind.WHOLE in kinds:
        own = ids.unsqueeze(-1) * num_chunks + torch.arange(num_chunks, device=ids.device)
        block = torch.where(kind == Kind.WHOLE, own, block)
    start = row[..., Column.HASHED_BASE] + block * block_size
    if kinds <= {Kind.UNSIGNED, Kind.WHOLE}:
        return start

    slot = find_slots(ids.unsqueeze(-1), keys, row, fingerprints, overflow_keys)
    signed = slot >= 0
    # An unsigned token reads its table's first signature, which is then not used.
    slot = slot.clamp(min=0)
    chunk = torch.arange(num_chunks, device=ids.device)
    if Kind.RANDOM in kinds:
        state = combine_t(seeds, row[..., Column.CODE_SALT])
        for draw in range(draws.shape[1]):
            which = draws[:num_chunks, draw].long()
            state = combine_t(state, read_codes(codes, base, slot, row, which))
        block = reduce_range_t(state, row[..., Column.CODED_BLOCKS])
        coded = row[..., Column.CODED_BASE] + block * block_size
        start = torch.where(signed & (kind == Kind.RANDOM), coded, start)
    if Kind.LEARNED in kinds:
        which = chunk * row[..., Column.NUM_CODES] // num_chunks
        block = chunk * row[..., Column.CODED_BLOCKS] + read_codes(codes, base, slot, row, which)
        coded = row[..., Column.CODED_BASE] + block * block_size
        start = torch.where(signed & (kind == Kind.LEARNED), coded, start)
    return start


def private_starts(ids: Tensor, row: Tensor) -> Tensor:
    """First float of every token's private part: int64 [...]."""
    count = row[..., Column.NUM_PRIVATE]
    slot = torch.where((ids >= 0) & (ids < count), ids, count)
    return row[..., Column.PRIVATE_BASE] + slot * row[..., Column.PRIVATE_DIM]


def hash_blocks(keys: Tensor, seeds: Tensor, num_blocks: Tensor | int) -> Tensor:
    """`range(hash(seed_j, key), num_blocks)` for every j: int64 [..., seeds].

    Element hashing with blocks of one is HashedNets (Chen et al. 2015); a single block of a whole
    row is the hashing trick (Weinberger et al. 2009).
    """
    return reduce_range_t(combine_t(seeds, keys.unsqueeze(-1)), num_blocks)


__all__ = [
    "EMPTY",
    "LANES",
    "SECOND_BUCKET",
    "candidate_buckets",
    "chunk_starts",
    "find_fingerprint",
    "find_slots",
    "fingerprint_of",
    "hash_blocks",
    "private_starts",
    "read_codes",
]
