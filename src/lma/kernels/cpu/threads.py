"""Runs a `nogil` kernel over pieces of its work, on as many threads as torch uses.

Numba's own thread layers abort or hang when several Python threads or forked children use them
at once. Here a kernel is an ordinary function of a range of work, and whoever is free takes the
next piece. Kernels never wait for one another, so callers cannot block each other for good.

The threads are torch's own, those of the OpenMP library that torch has loaded: after every
parallel operation of torch they spin for some milliseconds in wait for the next one, and threads
of ours would have to share their cores (a lookup after a matrix product took twice as long). Where
that library is another than GNU's, and in the child of a fork, which has none of its parent's
threads, a pool that belongs to the process does the same.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_forked = False
_REGION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _after_fork() -> None:
    """A child has none of its parent's threads, and perhaps its held lock."""
    global _lock, _pool, _forked
    _lock, _pool, _forked = threading.Lock(), None, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _openmp() -> Any:
    """`GOMP_parallel(function, data, threads, flags)` of torch's OpenMP library, or None."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            # Only if it is loaded already: a second copy would have threads of its own.
            parallel = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = (_REGION, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel.restype = None
        return parallel
    return None


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="lma-kernel")
        return _pool


def num_pieces(work: int, grain: int) -> int:
    """Pieces to cut `work` units into: torch's thread count, but at least `grain` units each."""
    return max(1, min(torch.get_num_threads(), work // max(1, grain)))


def run_pieces(run: Callable[[int, int], None], work: int, pieces: int) -> None:
    """Call `run(first, last)` on contiguous pieces of [0, work); returns when all are done.

    An exception of any piece is raised here, after the others have ended.
    """
    if pieces == 1:
        run(0, work)
        return
    bounds = [work * i // pieces for i in range(pieces + 1)]
    turn = itertools.count()
    errors: list[BaseException] = []

    def take(_: Any = None) -> None:
        try:
            # Of all threads together: `next` of a count is one step under the GIL.
            while (i := next(turn)) < pieces:
                run(bounds[i], bounds[i + 1])
        # Whatever it is, an interrupt too: OpenMP's threads have nobody to raise it to.
        except BaseException as error:
            errors.append(error)

    parallel = None if _forked else _openmp()
    if parallel is not None:
        parallel(_REGION(take), None, pieces, 0)
    else:
        others = [_executor().submit(take) for _ in range(pieces - 1)]
        take()
        # The pieces write into this call's arrays: never leave before they are done.
        for other in others:
            other.result()
    if errors:
        raise errors[0]
