"""The seeded 64-bit hash family, identical bit for bit in NumPy and torch.

Every address, key and signature in `lma` comes from these few functions, and their values are
part of every file we write. `HASH_VERSION` names the definition; changing one constant below
means bumping it, and golden values in the tests fail until that is done on purpose.

All arithmetic is on unsigned 64-bit integers that wrap around. NumPy holds them as `uint64`;
torch has no complete `uint64`, so there the same 64 bits live in an `int64`, and a right shift
is made logical by masking.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

HASH_VERSION: Final = 1

GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
MIX_1: Final = 0xBF58476D1CE4E5B9  # splitmix64 finaliser (Steele et al. 2014, Stafford's mix 13)
MIX_2: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1
# Inverses modulo 2^64 of the odd constants above: the mix is a bijection and can be undone.
_GOLDEN_INVERSE: Final = pow(GOLDEN, -1, 1 << 64)
_MIX_1_INVERSE: Final = pow(MIX_1, -1, 1 << 64)
_MIX_2_INVERSE: Final = pow(MIX_2, -1, 1 << 64)

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


def to_signed(value: int) -> int:
    """The int64 that holds the same 64 bits as the unsigned `value`."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


# --- plain integers: the definition -------------------------------------------------------


def mix64_int(x: int) -> int:
    """splitmix64's finaliser of one integer: the definition that the array forms must equal."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * MIX_1) & _MASK
    x = ((x ^ (x >> 27)) * MIX_2) & _MASK
    return x ^ (x >> 31)


def combine_int(state: int, value: int) -> int:
    """Hash of `value` under `state`: mix((state xor value) + GOLDEN)."""
    return mix64_int(((state ^ (value & _MASK)) + GOLDEN) & _MASK)


def stream_seed(seed: int, stream: int) -> int:
    """The state of the `stream`-th independent hash function of a family with this `seed`."""
    return combine_int(mix64_int(seed), stream)


def hash_string(value: str | bytes) -> int:
    """Our own pinned 64-bit hash of a string (UTF-8) or of bytes, unsigned.

    The bytes are read as little-endian 64-bit words, the last one padded with zeros, and folded
    with `combine_int` from a state that depends on the length.

    >>> hex(hash_string("C1"))
    '0xf9bf6aeebf1de89b'
    """
    data = value.encode() if isinstance(value, str) else value
    state = mix64_int(len(data))
    for start in range(0, len(data), 8):
        state = combine_int(state, int.from_bytes(data[start : start + 8], "little"))
    return state


# --- NumPy --------------------------------------------------------------------------------


def as_u64(x: npt.ArrayLike) -> U64:
    """View integers as their 64 bits, unsigned."""
    array = np.asarray(x)
    if array.dtype == np.uint64:
        return array
    if array.dtype.kind not in "iub":
        raise TypeError(f"hashing: expected integers, found dtype {array.dtype}")
    return array.astype(np.int64, copy=False).view(np.uint64)


def mix64(x: npt.ArrayLike) -> U64:
    """splitmix64's finaliser of every element. Shape kept."""
    h = as_u64(x)
    # 0-d arrays become scalars, whose wrap-around would warn.
    with np.errstate(over="ignore"):
        h = (h ^ (h >> np.uint64(30))) * np.uint64(MIX_1)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(MIX_2)
        return np.asarray(h ^ (h >> np.uint64(31)))


def combine(state: npt.ArrayLike, value: npt.ArrayLike) -> U64:
    """Hash of `value` under `state`, broadcast: mix((state xor value) + GOLDEN)."""
    with np.errstate(over="ignore"):
        return mix64((as_u64(state) ^ as_u64(value)) + np.uint64(GOLDEN))


def stream_seeds(seed: int, count: int, first: int = 0) -> U64:
    """The states of `count` independent hash functions, `stream_seed(seed, first + i)`."""
    return combine(mix64_int(seed), np.arange(first, first + count))


def reduce_range(h: npt.ArrayLike, size: npt.ArrayLike) -> I64:
    """Map 64-bit hashes to [0, size), size < 2^31, by multiply-shift on the upper 32 bits."""
    high = as_u64(h) >> np.uint64(32)
    return ((high * as_u64(size)) >> np.uint64(32)).view(np.int64)


def hash_strings(values: Iterable[str | bytes]) -> I64:
    """`hash_string` of many values as int64 ids, shape (n,)."""
    encoded = [v.encode() if isinstance(v, str) else v for v in values]
    lengths = np.fromiter((len(v) for v in encoded), dtype=np.int64, count=len(encoded))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return hash_string_buffer(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)


def hash_string_buffer(data: npt.NDArray[np.uint8], offsets: I64) -> I64:
    """`hash_string` of n strings stored Arrow-style, without a Python loop over them.

    Args:
        data: The bytes of all strings, one after the other.
        offsets: Where each begins, ascending, shape (n + 1,); the last is the end.

    Returns:
        int64 ids (the hash's 64 bits), shape (n,).
    """
    starts, lengths = offsets[:-1].astype(np.int64), np.diff(offsets)
    if len(lengths) and lengths.min() < 0:
        raise ValueError("hash_string_buffer: offsets must ascend")
    state = mix64(lengths)
    # Eight spare bytes let the last string's last word be read whole; the excess is masked off.
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    words: U64 = np.ndarray(
        (len(data) + 1,), dtype=np.dtype("<u8"), buffer=padded.data, strides=(1,)
    )
    for word in range(int((lengths.max(initial=0) + 7) // 8)):
        (active,) = np.nonzero(lengths > 8 * word)
        value = words[starts[active] + 8 * word].astype(np.uint64)
        excess = np.clip(8 * (word + 1) - lengths[active], 0, 7).astype(np.uint64) * np.uint64(8)
        value &= np.uint64(_MASK) >> excess
        state[active] = combine(state[active], value)
    return state.view(np.int64)


# --- keys ---------------------------------------------------------------------------------


def table_salt(table: str) -> int:
    """The hash of a table's name, unsigned, that its token keys are mixed with."""
    return hash_string(table)


def token_keys(salt: npt.ArrayLike, ids: npt.ArrayLike) -> U64:
    """64-bit keys of token ids: mix(id * GOLDEN + salt); `salt` broadcasts against `ids`."""
    with np.errstate(over="ignore"):
        return mix64(as_u64(ids) * np.uint64(GOLDEN) + as_u64(salt))


def token_ids(salt: npt.ArrayLike, keys: npt.ArrayLike) -> I64:
    """The ids that `token_keys(salt, ids)` was made of: the mix is a bijection."""
    with np.errstate(over="ignore"):
        h = as_u64(keys)
        h = h ^ (h >> np.uint64(31)) ^ (h >> np.uint64(62))
        h = h * np.uint64(_MIX_2_INVERSE)
        h = h ^ (h >> np.uint64(27)) ^ (h >> np.uint64(54))
        h = h * np.uint64(_MIX_1_INVERSE)
        h = h ^ (h >> np.uint64(30)) ^ (h >> np.uint64(60))
        return np.asarray((h - as_u64(salt)) * np.uint64(_GOLDEN_INVERSE)).view(np.int64)


def token_key(table: str, value: int | str | bytes) -> int:
    """The 64-bit key (as int64) of one token: a mix of its table's name and its id.

    Args:
        table: The table's name.
        value: The token's int64 id, or a raw string, whose id is `hash_string`.

    >>> token_key("C1", 7) != token_key("C2", 7)
    True
    """
    # An index, so that NumPy's integers do not wrap around or overflow below.
    token = hash_string(value) if isinstance(value, (str, bytes)) else operator.index(value)
    if not -(1 << 63) <= token < (1 << 64):
        raise ValueError(f"token_key: value must fit in 64 bits, found {token}")
    return to_signed(mix64_int(token * GOLDEN + table_salt(table)))


# --- torch --------------------------------------------------------------------------------


def shift_right_t(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift of the 64 bits held in an int64 tensor."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix64_t(x: torch.Tensor) -> torch.Tensor:
    """`mix64` of an int64 tensor."""
    x = (x ^ shift_right_t(x, 30)) * to_signed(MIX_1)
    x = (x ^ shift_right_t(x, 27)) * to_signed(MIX_2)
    return x ^ shift_right_t(x, 31)


def combine_t(state: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`combine` of int64 tensors, broadcast."""
    return mix64_t((state ^ value) + to_signed(GOLDEN))


def token_keys_t(salt: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """`token_keys` of int64 tensors, broadcast."""
    return mix64_t(ids * to_signed(GOLDEN) + salt)


def reduce_range_t(h: torch.Tensor, size: torch.Tensor | int) -> torch.Tensor:
    """`reduce_range` of an int64 tensor; size < 2^31."""
    return (shift_right_t(h, 32) * size) >> 32
