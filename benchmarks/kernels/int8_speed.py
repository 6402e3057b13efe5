"""An int8 memory against the floats it was made from: bytes, error, time of a lookup.

python benchmarks/kernels/int8_speed.py --dims 16 64 --blocks 4 16 --scale 16
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from lma.benchmarking import circumstances, interleaved
from lma.benchmarking.criteo_shape import draw_ids, lma_collection, sizes
from lma.benchmarking.rivals import in_turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--compressions", type=float, nargs="+", default=[16])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--scale", type=int, default=16, help="cardinalities are divided by it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall",
        help="cpu: time of one thread, for a busy machine; needs --threads 1",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-model.jsonl"))
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu needs --threads 1")
    clock = time.thread_time if arguments.clock == "cpu" else time.perf_counter
    torch.set_num_threads(arguments.threads)
    tokens = sizes(arguments.scale)
    batches = [draw_ids(tokens, arguments.batch, "zipf", seed) for seed in range(8)]
    for dim in arguments.dims:
        for block in arguments.blocks:
            for compression in arguments.compressions:
                floats, int8 = (
                    lma_collection(tokens, dim, block, compression, "random") for _ in range(2)
                )
                int8.load_state_dict(floats.state_dict())
                int8.memory.quantise_()
                with torch.no_grad():
                    moved = (int8(batches[0]) - floats(batches[0])).abs().max()
                    times = interleaved(
                        {"float32": in_turn(floats, batches), "int8": in_turn(int8, batches)},
                        arguments.repeats,
                        clock=clock,
                    )
                sizes_of = [m.memory.num_bytes().weights for m in (floats, int8)]
                std = float(floats.memory.weight.detach().std())
                medians = [times[name]["median_ms"] for name in ("float32", "int8")]
                line = {
                    "benchmark": "kernels/int8_speed", "dim": dim, "block": block,
                    "compression": compression, "batch": arguments.batch, "scale": arguments.scale,
                    "clock": arguments.clock, "float32_ms": medians[0], "int8_ms": medians[1],
                    "float32_bytes": sizes_of[0], "int8_bytes": sizes_of[1],
                    "largest_error_over_std": float(moved) / std,
                    **circumstances(),
                }  # fmt: skip
                with arguments.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                sys.stdout.write(
                    f"dim {dim} block {block} {compression:g}x: float32 {medians[0]:.2f} ms, int8 "
                    f"{medians[1]:.2f} ms ({medians[1] / medians[0]:.2f}), weights "
                    f"{sizes_of[0] / 1e6:.1f} -> {sizes_of[1] / 1e6:.1f} MB, largest error "
                    f"{float(moved) / std:.3f} standard deviations\n"
                )


if __name__ == "__main__":
    main()
