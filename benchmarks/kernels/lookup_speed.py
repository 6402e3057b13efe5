"""Forward and training step of the embedding, side by side with its rivals.

    python benchmarks/kernels/lookup_speed.py --dims 16 --blocks 1 4 16 --batch 2048 --scale 16

Rivals: `torch.index_select` of the same blocks with their numbers known, `nn.EmbeddingBag` per
full table (sparse gradients, `torch.optim.Adagrad`), and FBGEMM's table-batched embedding with
its fused Adagrad where `fbgemm-gpu-cpu` is installed. Kernel tests run first: no speed is
reported of kernels that are wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from criteo_shape import CARDINALITIES, draw_ids, lma_collection, sizes
from timing import circumstances, interleaved
from torch import Tensor, nn

from lma.kernels.lookup import chunk_starts
from lma.nn import EmbeddingBagCollection, FusedOptimizer

Step = Callable[[], Any]
ROTATION = 8  # different batches, so that none stays in cache by repetition alone


def in_turn(function: Callable[[Tensor], Any], batches: list[Tensor]) -> Step:
    """Call `function` with the next batch each time."""
    count = 0

    def step() -> Any:
        nonlocal count
        count += 1
        return function(batches[count % len(batches)])

    return step


def full_tables(tokens: list[int], dim: int) -> nn.ModuleList:
    """One `nn.EmbeddingBag` per table."""
    return nn.ModuleList(nn.EmbeddingBag(s, dim, mode="sum", sparse=True) for s in tokens)


def full_forward(tables: nn.ModuleList, ids: Tensor) -> Tensor:
    return torch.cat([table(ids[:, i : i + 1]) for i, table in enumerate(tables)], 1)


def fbgemm_tables(tokens: list[int], dim: int) -> Any:
    """FBGEMM's CPU table-batched embedding with exact Adagrad, or None where it is missing."""
    try:
        import fbgemm_gpu  # noqa: F401 registers its operators
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )
    except ImportError:
        return None
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(s, dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for s in tokens],
        optimizer=EmbOptimType.EXACT_ADAGRAD,
        learning_rate=0.01,
    )


def bare_gather(module: EmbeddingBagCollection, batches: list[Tensor]) -> Step:
    """`index_select` of the same blocks, their numbers known."""
    memory, allocation = module.memory, module.allocation
    rule = allocation.rule()
    assert rule is not None
    numbers = torch.arange(len(allocation.tables))
    pieces = allocation.pieces([allocation.group(0)])
    blocks = [
        chunk_starts(rule, ids.reshape(-1), numbers, allocation.block_size, pieces)
        .reshape(-1)
        .long()
        for ids in batches
    ]
    weight = memory.weight.detach()
    return in_turn(lambda index: weight.index_select(0, index), blocks)


def forward_steps(
    modules: dict[str, EmbeddingBagCollection], full: nn.ModuleList, batches: list[Tensor]
) -> dict[str, Step]:
    steps: dict[str, Step] = {"EmbeddingBag": in_turn(lambda x: full_forward(full, x), batches)}
    for name, module in modules.items():
        steps[name] = in_turn(module, batches)
        steps[f"index_select {name}"] = bare_gather(module, batches)
    return steps


def training_steps(
    modules: dict[str, EmbeddingBagCollection],
    full: nn.ModuleList,
    fbgemm: Any,
    grad: Tensor,
    batches: list[Tensor],
) -> dict[str, Step]:
    adagrad = torch.optim.Adagrad(full.parameters(), lr=0.01)

    def step_full(ids: Tensor) -> None:
        adagrad.zero_grad()
        full_forward(full, ids).backward(grad)
        adagrad.step()

    steps: dict[str, Step] = {"EmbeddingBag sparse + Adagrad": in_turn(step_full, batches)}
    if fbgemm is not None:
        features, batch = batches[0].shape[1], len(batches[0])
        offsets = torch.arange(features * batch + 1)
        columns = [ids.t().contiguous().view(-1) for ids in batches]
        steps["FBGEMM Adagrad"] = in_turn(
            lambda values: fbgemm(values, offsets).backward(grad), columns
        )
    for name, module in modules.items():
        steps[name] = in_turn(lambda ids, m=module: m(ids).backward(grad), batches)
    return steps


def run(arguments: argparse.Namespace, dim: int, popularity: str) -> list[dict[str, Any]]:
    tokens = sizes(arguments.scale)
    batches = [draw_ids(tokens, arguments.batch, popularity, seed) for seed in range(ROTATION)]
    modules = {}
    for block in arguments.blocks:
        for kind in arguments.kinds:
            name = f"lma {kind} block {block}"
            modules[name] = lma_collection(tokens, dim, block, arguments.compression, kind)
    full = full_tables(tokens, dim)
    lines = []
    clock = time.thread_time if arguments.clock == "cpu" else time.perf_counter
    # Torch's Adagrad makes sparse tensors without saying whether to check them.
    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    with torch.no_grad():
        forward = interleaved(forward_steps(modules, full, batches), arguments.repeats, clock=clock)
    for module in modules.values():
        method = "block_adagrad" if module.allocation.block_size > 1 else "adagrad"
        FusedOptimizer(module.memory, method, lr=0.01)
    grad = torch.randn(arguments.batch, dim * len(tokens))
    fbgemm = None if arguments.no_fbgemm else fbgemm_tables(tokens, dim)
    training = interleaved(
        training_steps(modules, full, fbgemm, grad, batches), arguments.repeats, clock=clock
    )
    for what, times in (("forward", forward), ("training step", training)):
        for method, figures in times.items():
            lines.append(
                {
                    "benchmark": "kernels/lookup_speed", "what": what, "method": method,
                    "dim": dim, "popularity": popularity, "batch": arguments.batch,
                    "scale": arguments.scale, "compression": arguments.compression,
                    "features": len(CARDINALITIES), "repeats": arguments.repeats,
                    "clock": arguments.clock,
                    "signed_share": signed_share(tokens, batches), **figures,
                }
            )  # fmt: skip
    return lines


def signed_share(tokens: list[int], batches: list[Tensor]) -> float:
    """Share of lookups whose token has a signature."""
    half = torch.tensor([-(-s // 2) for s in tokens])
    return float(torch.stack([(ids < half).double().mean() for ids in batches]).mean())


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
    for dim in arguments.dims:
        for popularity in arguments.popularity:
            lines = run(arguments, dim, popularity)
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
