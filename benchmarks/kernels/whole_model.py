"""A whole DLRM, compressed and with full tables: training step, inference, resident memory.

    python benchmarks/kernels/whole_model.py --dim 16 --scale 1 --compressions 16
    python benchmarks/kernels/whole_model.py --dim 16 --scale 4 --compressions 1 4 16 64 250 1000

Every model runs in a process of its own, one after the other. Both train with Adagrad: full
tables through sparse gradients, the shared memory in the backward pass; the MLPs (13-512-256-64-d
and 512-256-1) alike. "16x" is the full tables' bytes over serving bytes: weights and signatures.
Memory is what the operating system says: resident bytes after training minus those after imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any


def child(settings: dict[str, Any]) -> dict[str, Any]:
    import numba  # noqa: F401 before the count begins, as everything that is imported later
    import psutil
    import torch

    import lma.kernels.cpu.lookup
    import lma.kernels.cpu.touched  # noqa: F401
    from lma.benchmarking import interleaved
    from lma.benchmarking.criteo_shape import (
        CODE_BITS,
        NUM_CODES,
        draw_ids,
        lma_collection,
        sizes,
    )
    from lma.benchmarking.rivals import FullTables, in_turn
    from lma.cli.preset import load_preset
    from lma.models import DLRM
    from lma.nn import FusedOptimizer

    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    torch.set_num_threads(settings["threads"])
    process = psutil.Process()
    imported = process.memory_info().rss
    tokens, batch = sizes(settings["scale"]), settings["batch"]
    dim, compression = settings["dim"], settings["compression"]
    if compression is None:
        embeddings: Any = FullTables(tokens, dim)
    else:
        # As `Lma` plans: half of the serving bytes for signatures, of half the tokens at most.
        budget = sum(tokens) * dim * 4 / compression
        signed = min(0.5, budget / 2 / (sum(tokens) * NUM_CODES * CODE_BITS / 8))
        weights = budget - signed * sum(tokens) * NUM_CODES * CODE_BITS / 8
        embeddings = lma_collection(
            tokens, dim, settings["block"], sum(tokens) * dim * 4 / weights, settings["kind"],
            signed,
        )  # fmt: skip
        FusedOptimizer(embeddings.memory, settings["optimizer"], lr=0.01)
    paper = load_preset("paper-criteo").comparison["model"]
    model = DLRM(embeddings, 13, bottom=paper["bottom"], top=paper["top"])
    own = {id(p) for p in embeddings.parameters()} if compression is not None else set()
    optimizer = torch.optim.Adagrad([p for p in model.parameters() if id(p) not in own], lr=0.01)
    dense, label = torch.randn(batch, 13), torch.randint(0, 2, (batch,)).float()
    batches = [draw_ids(tokens, batch, settings["popularity"], seed) for seed in range(8)]

    def train(ids: Any) -> None:
        optimizer.zero_grad()
        logits = model(dense, ids)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, label).backward()
        optimizer.step()

    def infer(ids: Any) -> None:
        with torch.no_grad():
            model(dense, ids)

    times = interleaved({"step": in_turn(train, batches)}, settings["repeats"])
    grown = process.memory_info().rss - imported
    times |= interleaved({"inference": in_turn(infer, batches)}, settings["repeats"])
    floats = sum(p.numel() for p in embeddings.parameters())
    serving = floats * 4 if compression is None else embeddings.memory.num_bytes().serving
    return {
        **{f"{name}_{key}": value for name, t in times.items() for key, value in t.items()},
        "resident_growth": grown, "embedding_floats": floats, "serving_bytes": serving,
        "tokens": sum(tokens),
    }  # fmt: skip


def measured(settings: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(settings)],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return {**settings, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--kind", default="random", choices=["random", "learned"])
    parser.add_argument("--optimizer", default="adagrad", choices=["adagrad", "block_adagrad"])
    parser.add_argument("--compressions", type=float, nargs="+", default=[16])
    parser.add_argument("--popularity", default="zipf", choices=["zipf", "uniform"])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--scale", type=int, default=4, help="cardinalities are divided by it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-model.jsonl"))
    arguments = parser.parse_args()
    if arguments.child:
        sys.stdout.write(json.dumps(child(json.loads(arguments.child))) + "\n")
        return
    from lma.benchmarking import circumstances

    names = ("dim", "block", "kind", "optimizer", "popularity", "batch", "scale", "threads",
             "repeats")  # fmt: skip
    settings = {name: getattr(arguments, name) for name in names}
    began = time.perf_counter()
    full: dict[str, Any] = {}
    for compression in [None, *arguments.compressions]:
        line = measured({**settings, "compression": compression})
        full = full or line
        with arguments.out.open("a") as file:
            about = {"benchmark": "kernels/whole_model", **line, **circumstances()}
            file.write(json.dumps(about | {"threads": arguments.threads}) + "\n")
        ratios = [line[k] / full[k] for k in ("step_median_ms", "inference_median_ms",
                                              "resident_growth")]  # fmt: skip
        sys.stdout.write(
            f"{'full' if compression is None else f'{compression:g}x':>6} "
            f"step {line['step_median_ms']:8.2f} ms ({ratios[0]:.3f})  "
            f"inference {line['inference_median_ms']:8.2f} ms ({ratios[1]:.3f})  "
            f"resident {line['resident_growth'] / 1e6:8.1f} MB ({ratios[2]:.3f})  "
            f"serving {line['serving_bytes'] / 1e6:8.1f} MB\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"{time.perf_counter() - began:.0f} s\n")


if __name__ == "__main__":
    main()
