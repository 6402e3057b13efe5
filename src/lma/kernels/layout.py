"""How a table's addresses are laid out: one row of int64 numbers per table.

The rows travel in the `state_dict` of every LMA memory (buffer `layout`), so a model file alone
says where each of its vectors lives, and a kernel needs nothing else besides the codes.

A vector of `DIM` floats is its private part followed by its semantic part:

    [ private: PRIVATE_DIM floats | chunk 0 | chunk 1 | ... ]    chunks of `block_size` floats

A token with id < NUM_PRIVATE has its own private floats; the other tokens of the table share
slot NUM_PRIVATE. Chunks of a signed token read the coded region, those of an unsigned token the
hashed region; both regions are given in floats of the flat memory.
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """Where a signed token's blocks come from."""

    UNSIGNED = 0  # no signatures: every token takes the plain hash
    RANDOM = 1  # block = range(hash(seed, j, codes that chunk j draws), CODED_BLOCKS)
    LEARNED = 2  # block = chunk's codebook + code
    WHOLE = 3  # no signatures: block = id * chunks + j, every token's own (ids >= 0)


class Column(IntEnum):
    """Columns of the layout tensor, int64 [tables, len(Column)]."""

    SALT = 0  # hash of the table's name, mixed into token keys
    CODE_SALT = 1  # mixed into random codes: SALT, or 0 where tables may share by similarity
    KIND = 2
    NUM_SIGNED = 3  # `prefix` index: ids below are signed; `fingerprint` index: -1
    CODE_BASE = 4  # byte in `codes` where the table's signatures begin
    NUM_CODES = 5
    CODE_BITS = 6
    BUCKET_BASE = 7  # first fingerprint bucket
    NUM_BUCKETS = 8
    OVERFLOW_BASE = 9  # first entry of the exact overflow list
    NUM_OVERFLOW = 10
    DIM = 11
    PRIVATE_BASE = 12  # floats
    NUM_PRIVATE = 13
    PRIVATE_DIM = 14
    CODED_BASE = 15  # floats
    CODED_BLOCKS = 16  # blocks of the region (random) or of one chunk's codebook (learned)
    HASHED_BASE = 17  # floats
    HASHED_BLOCKS = 18
