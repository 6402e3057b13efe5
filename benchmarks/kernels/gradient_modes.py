"""Where touched blocks pay: the embedding's step with dense, sparse and fused gradients.

    python benchmarks/kernels/gradient_modes.py --dims 16 64 --blocks 1 4 16 --batches 512 2048

Adagrad in all three: torch's on a dense gradient of the memory, torch's on a sparse gradient of the
touched blocks (`sparse=True`), and `FusedOptimizer` in the backward pass. The memory has as many
floats as a step reads, times each of `--reuses`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from lma.benchmarking import circumstances, interleaved
from lma.benchmarking.criteo_shape import draw_ids, lma_collection, sizes
from lma.benchmarking.rivals import in_turn
from lma.nn import FusedOptimizer

MODES = ("dense", "sparse", "fused")


def step(module: Any, optimizer: Any, grad: torch.Tensor, ids: torch.Tensor) -> None:
    if optimizer is not None:
        optimizer.zero_grad()
    module(ids).backward(grad)
    if optimizer is not None:
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[16])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--batches", type=int, nargs="+", default=[2048])
    parser.add_argument(
        "--reuses", type=float, nargs="+", default=[0.02, 0.1, 0.5, 2, 8, 32],
        help="floats of the memory over floats that a step reads",
    )  # fmt: skip
    parser.add_argument("--scale", type=int, default=16, help="cardinalities are divided by it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall",
        help="cpu: time of one thread, for a busy machine; needs --threads 1",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-model.jsonl"))
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu needs --threads 1")
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    tokens = sizes(arguments.scale)
    cells = itertools.product(arguments.batches, arguments.dims, arguments.blocks, arguments.reuses)
    for batch, dim, block, reuse in cells:
        line = measured(tokens, batch, dim, block, reuse, arguments)
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{mode} {line[mode + '_ms']:.2f}" for mode in MODES)
        sys.stdout.write(
            f"batch {batch} dim {dim} block {block} {line['memory_bytes'] / 1e6:8.2f} MB "
            f"({reuse:g} times a step's floats): {shown} ms\n"
        )
        sys.stdout.flush()


def measured(
    tokens: list[int], batch: int, dim: int, block: int, reuse: float, arguments: Any
) -> dict[str, Any]:
    """One memory's result line."""
    clock = time.thread_time if arguments.clock == "cpu" else time.perf_counter
    batches = [draw_ids(tokens, batch, "zipf", seed) for seed in range(8)]
    floats = len(tokens) * dim * batch
    grad = torch.randn(batch, dim * len(tokens))
    steps = {}
    for mode in MODES:
        compression = sum(tokens) * dim / (reuse * floats)
        module = lma_collection(tokens, dim, block, compression, "random")
        module.memory.sparse = mode == "sparse"
        optimizer = None
        if mode == "fused":
            FusedOptimizer(module.memory, "adagrad", lr=0.01)
        else:
            optimizer = torch.optim.Adagrad(module.parameters(), lr=0.01)
        steps[mode] = in_turn(functools.partial(step, module, optimizer, grad), batches)
    times = interleaved(steps, arguments.repeats, warm_up=2, clock=clock)
    return {
        "benchmark": "kernels/gradient_modes", "dim": dim, "block": block, "batch": batch,
        "scale": arguments.scale, "reuse": reuse, "clock": arguments.clock,
        "memory_bytes": module.memory.num_bytes().weights,
        **{f"{mode}_ms": t["median_ms"] for mode, t in times.items()}, **circumstances(),
        "threads": arguments.threads,
    }  # fmt: skip


if __name__ == "__main__":
    main()
