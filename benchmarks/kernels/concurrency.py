"""Lookups from many Python threads and processes at once: right results, and how they scale.

    python benchmarks/kernels/concurrency.py --workers 1 2 4 8

Every worker looks batches up with one kernel thread of its own; figures are lookups per second of
all workers together, over those of one. Forked and spawned workers are processes, as the workers
of a data loader are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from lma.benchmarking import circumstances
from lma.benchmarking.criteo_shape import draw_ids, lma_collection, sizes

BATCH, DIM, BLOCK, SCALE = 2048, 16, 4, 64
_state: dict[str, Any] = {}


def prepare() -> None:
    """The same module and batches in every process."""
    torch.set_num_threads(1)
    if not _state:
        tokens = sizes(SCALE)
        torch.manual_seed(0)
        _state["module"] = lma_collection(tokens, DIM, BLOCK, 16, "random")
        _state["batches"] = [draw_ids(tokens, BATCH, "zipf", seed) for seed in range(8)]
        work(8)


def work(count: int) -> list[float]:
    """Sums of `count` lookups' vectors, to be compared among workers."""
    with torch.no_grad():
        return [
            float(_state["module"](_state["batches"][i % 8]).double().sum()) for i in range(count)
        ]


def seconds(pool: Executor, workers: int, count: int, wanted: list[float]) -> float:
    # Once before, so that every worker is there.
    list(pool.map(work, [8] * workers))
    begin = time.perf_counter()
    found = list(pool.map(work, [count] * workers))
    elapsed = time.perf_counter() - begin
    if any(sums != wanted for sums in found):
        raise RuntimeError("a worker's vectors differ")
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--count", type=int, default=150, help="batches per worker")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-model.jsonl"))
    arguments = parser.parse_args()
    prepare()
    wanted = work(arguments.count)
    for kind in ("threads", "fork", "spawn"):
        alone = 0.0
        for workers in arguments.workers:
            if kind == "threads":
                pool: Executor = ThreadPoolExecutor(workers)
            else:
                context = multiprocessing.get_context(kind)
                pool = ProcessPoolExecutor(workers, context, initializer=prepare)
            with pool:
                elapsed = seconds(pool, workers, arguments.count, wanted)
            rate = workers * arguments.count / elapsed
            alone = alone or rate
            line = {
                "benchmark": "kernels/concurrency", "kind": kind, "workers": workers,
                "batch": BATCH, "dim": DIM, "block": BLOCK, "scale": SCALE,
                "batches_per_s": rate, "speed_up": rate / alone, **circumstances(),
            }  # fmt: skip
            with arguments.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            sys.stdout.write(
                f"{kind:8} {workers} workers: {rate:7.1f} batches/s, {rate / alone:.2f} of one\n"
            )


if __name__ == "__main__":
    main()
