"""Where touched blocks pay: the embedding's step with dense, sparse and fused gradients.

    python benchmarks/kernels/gradient_modes.py --dim 16 --block 4 --compressions 1000 250 64 16 4

Adagrad in all three: torch's on a dense gradient of the memory, torch's on a sparse gradient of the
touched blocks (`sparse=True`), and `FusedOptimizer` in the backward pass.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from lma.benchmarking import circumstances, interleaved
from lma.benchmarking.criteo_shape import draw_ids, lma_collection, sizes
from lma.benchmarking.rivals import in_turn
from lma.nn import FusedOptimizer


def step(module: Any, optimizer: Any, grad: torch.Tensor, ids: torch.Tensor) -> None:
    if optimizer is not None:
        optimizer.zero_grad()
    module(ids).backward(grad)
    if optimizer is not None:
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--compressions", type=float, nargs="+", default=[1000, 250, 64, 16, 4])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--scale", type=int, default=16, help="cardinalities are divided by it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-model.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    tokens = sizes(arguments.scale)
    batches = [draw_ids(tokens, arguments.batch, "zipf", seed) for seed in range(8)]
    grad = torch.randn(arguments.batch, arguments.dim * len(tokens))
    for compression in arguments.compressions:
        steps = {}
        for mode in ("dense", "sparse", "fused"):
            module = lma_collection(tokens, arguments.dim, arguments.block, compression, "random")
            module.memory.sparse = mode == "sparse"
            optimizer = None
            if mode == "fused":
                FusedOptimizer(module.memory, "adagrad", lr=0.01)
            else:
                optimizer = torch.optim.Adagrad(module.parameters(), lr=0.01)
            steps[mode] = in_turn(functools.partial(step, module, optimizer, grad), batches)
        times = interleaved(steps, arguments.repeats)
        memory_bytes = module.memory.num_bytes().weights
        line = {
            "benchmark": "kernels/gradient_modes", "dim": arguments.dim, "block": arguments.block,
            "compression": compression, "batch": arguments.batch, "scale": arguments.scale,
            "memory_bytes": memory_bytes,
            **{f"{mode}_ms": t["median_ms"] for mode, t in times.items()}, **circumstances(),
        }  # fmt: skip
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = ", ".join(f"{mode} {t['median_ms']:.2f}" for mode, t in times.items())
        sys.stdout.write(f"{memory_bytes / 1e6:8.2f} MB ({compression:g}x): {shown} ms\n")


if __name__ == "__main__":
    main()
