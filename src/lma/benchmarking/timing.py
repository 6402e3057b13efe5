"""Side-by-side timing: methods take turns, so that a busy machine disturbs all alike."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numba
import torch


def interleaved(
    steps: dict[str, Callable[[], Any]],
    repeats: int,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Median, 20 % and 80 % of every step's milliseconds; the steps take turns.

    With one thread `time.thread_time` as the clock leaves out what a busy machine's other
    processes take.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(warm_up):
        for step in steps.values():
            step()
    for _ in range(repeats):
        for name, step in steps.items():
            begin = clock()
            step()
            times[name].append(1e3 * (clock() - begin))
    return {
        name: {
            "median_ms": statistics.median(t),
            "p20_ms": statistics.quantiles(t, n=5)[0],
            "p80_ms": statistics.quantiles(t, n=5)[3],
        }
        for name, t in times.items()
    }


def circumstances() -> dict[str, Any]:
    """Machine, versions, threads and commit: part of every line."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(s.split(":")[1].strip() for s in lines if s.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "machine": model,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "threads": torch.get_num_threads(),
        "commit": commit.stdout.strip(),
    }
