"""`lma.hashing` inside Numba kernels: the same bits.

Numba's cache of a kernel does not notice edits of functions it calls from other files: after an
edit here, delete `__pycache__` beside this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

from lma.hashing import GOLDEN, MIX_1, MIX_2

F = TypeVar("F", bound=Callable[..., Any])

_GOLDEN = np.uint64(GOLDEN)
_MIX_1 = np.uint64(MIX_1)
_MIX_2 = np.uint64(MIX_2)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


# "numpy": a division by zero gives inf instead of an exception that nogil code cannot raise.
# No reference counts ("_nrt"): counting every array at every token made kernels seven times
# slower. A kernel therefore allocates nothing; the launcher hands it its scratch memory.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: F) -> F:
    """Compile at the first call, keep on disk, run without the GIL."""
    compiled: Any = njit(**_OPTIONS)(function)
    return compiled


def inlined(function: F) -> F:
    """A function that becomes part of the kernels that call it."""
    compiled: Any = njit(**_OPTIONS, forceinline=True)(function)
    return compiled


@inlined
def mix64(x: Any) -> Any:
    """splitmix64's finaliser of a uint64."""
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@inlined
def combine(state: Any, value: Any) -> Any:
    """Hash of `value` under `state`, both uint64."""
    return mix64((state ^ value) + _GOLDEN)


@inlined
def token_key(salt: Any, token: Any) -> Any:
    """Key of a token id, all uint64."""
    return mix64(token * _GOLDEN + salt)


@inlined
def reduce_range(h: Any, size: Any) -> Any:
    """Map a uint64 hash to [0, size), size < 2^31; uint64."""
    return ((h >> _S32) * size) >> _S32
