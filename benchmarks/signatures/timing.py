"""Timing in turns, and one JSON line per figure that says where it came from."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Step = TypeVar("Step", bound=Hashable)


def in_turns(steps: Mapping[Step, Callable[[], Any]], rounds: int) -> dict[Step, list[float]]:
    """Seconds of every step, `rounds` times; the steps take turns, so that all meet the same load.

    Every step runs once beforehand, untimed.
    """
    for step in steps.values():
        step()
    seconds: dict[Step, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def line(benchmark: str, seconds: list[float], units: float, **facts: Any) -> None:
    """Print one JSON line: median, 20 and 80 % of `units` per second, machine and commit."""
    rates = sorted(units / s for s in seconds)
    found = {
        "benchmark": benchmark,
        "per_second": round(statistics.median(rates)),
        "low_20": round(rates[int(0.2 * (len(rates) - 1))]),
        "high_80": round(rates[int(0.8 * (len(rates) - 1))]),
        "rounds": len(rates),
        **facts,
        **machine(),
    }
    print(json.dumps(found), flush=True)


def machine() -> dict[str, Any]:
    """Machine, versions, threads, load and commit."""
    import numba
    import numpy
    import torch

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "torch": torch.__version__,
        "commit": commit,
    }
