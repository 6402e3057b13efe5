"""Forward and training step of the embedding, side by side with its rivals.

    python benchmarks/kernels/lookup_speed.py --dims 16 --blocks 1 4 16 --batch 2048 --scale 16

Rivals: `torch.index_select` of the same blocks with their numbers known, `nn.EmbeddingBag` per
full table (sparse gradients, `torch.optim.Adagrad`), and FBGEMM's table-batched embedding with
its fused Adagrad where `fbgemm-gpu-cpu` is installed. "bare moves" is no rival: torch's own
operations, blocks' numbers known, that gather a step's blocks, read its gradient and rewrite the
touched blocks. A step may be faster than that. Kernel tests run first: no speed is reported of
kernels that are wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from lma.benchmarking import EmbeddingSpeed, circumstances, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[16])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--kinds", nargs="+", default=["random", "learned"])
    parser.add_argument("--popularity", nargs="+", default=["zipf", "uniform"])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--compression", type=float, default=16)
    parser.add_argument("--scale", type=int, default=16, help="cardinalities are divided by it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall",
        help="cpu: time of one thread, for a busy machine; needs --threads 1",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-fbgemm", action="store_true")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels.jsonl"))
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu needs --threads 1")
    torch.set_num_threads(arguments.threads)
    if not arguments.no_tests:
        tests = ["tests/kernels/test_kernel_lookup.py", "tests/kernels/test_kernel_touched.py"]
        subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], check=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    clock = time.thread_time if arguments.clock == "cpu" else time.perf_counter
    for dim in arguments.dims:
        for popularity in arguments.popularity:
            lines = measure(
                EmbeddingSpeed(
                    dim, popularity, arguments.batch, arguments.scale, arguments.compression,
                    tuple(arguments.blocks), tuple(arguments.kinds), arguments.repeats,
                    not arguments.no_fbgemm, clock,
                )
            )  # fmt: skip
            with arguments.out.open("a") as file:
                for line in lines:
                    file.write(json.dumps({**line, **circumstances()}) + "\n")
            for line in lines:
                sys.stdout.write(
                    f"{line['what']:14} {dim:4} {popularity:8} {line['method']:40} "
                    f"{line['median_ms']:9.3f} ms [{line['p20_ms']:.3f}, {line['p80_ms']:.3f}]\n"
                )


if __name__ == "__main__":
    main()
