"""Runs a `nogil` kernel over pieces of its work, on as many threads as torch uses.

Numba's own thread layers abort or hang when several Python threads or forked children use them
at once. Here a kernel is an ordinary function of a range of work; the pieces go to a pool of
threads that belongs to the process and is made anew after a fork. Kernels never wait for one
another, so callers cannot block each other for good.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """A child of a fork has none of its parent's threads, and perhaps its held lock."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


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
    bounds = [work * i // pieces for i in range(pieces + 1)]
    if pieces == 1:
        run(0, work)
        return
    futures = [_executor().submit(run, bounds[i], bounds[i + 1]) for i in range(1, pieces)]
    try:
        run(bounds[0], bounds[1])
    finally:
        # The pieces write into this call's arrays: never leave before they are done.
        errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error
