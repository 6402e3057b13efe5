"""A whole DLRM, compressed and with full tables: training step, inference, resident memory.

    python benchmarks/kernels/whole_model.py --dim 16 --scale 8 --compressions 1 4 16 64 250 1000
    python benchmarks/kernels/whole_model.py --dim 16 --scale 1 --compressions 16 --apart

Both train with Adagrad: full tables through sparse gradients, the shared memory in the backward
pass; the MLPs (13-512-256-64-d and 512-256-1) alike. "16x" is the full tables' bytes over serving
bytes: weights and signatures. Times are of models that take turns in one process, as ratios of a
busy machine mean little otherwise. Memory is what the operating system says of a process of every
model's own (`--apart`): resident bytes after training minus those after imports.
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


def imports() -> int:
    """Everything that a model needs, before the count of bytes begins: resident bytes then."""
    import numba  # noqa: F401
    import psutil

    import lma.benchmarking.criteo_shape
    import lma.cli.preset
    import lma.kernels.cpu.lookup
    import lma.kernels.cpu.touched  # noqa: F401

    return int(psutil.Process().memory_info().rss)


def model_of(settings: dict[str, Any], compression: float | None) -> tuple[Any, dict[str, Any]]:
    """A DLRM and its two steps, of a batch of ids each; None: full tables."""
    import torch

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

    tokens, batch, dim = sizes(settings["scale"]), settings["batch"], settings["dim"]
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

    return embeddings, {"step": in_turn(train, batches), "inference": in_turn(infer, batches)}


def sizes_of(embeddings: Any, compression: float | None) -> dict[str, int]:
    """Floats and serving bytes."""
    floats = sum(p.numel() for p in embeddings.parameters())
    serving = floats * 4 if compression is None else embeddings.memory.num_bytes().serving
    return {"embedding_floats": floats, "serving_bytes": serving}


def flat(what: str, times: dict[str, float]) -> dict[str, float]:
    """Times as entries of a result line."""
    return {f"{what}_{key}": value for key, value in times.items()}


def child(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Result lines of the models of `settings["compressions"]`, which take turns."""
    imported = imports()
    import psutil
    import torch

    from lma.benchmarking import interleaved

    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    torch.set_num_threads(settings["threads"])
    clock = time.thread_time if settings["clock"] == "cpu" else time.perf_counter
    models = {c: model_of(settings, c) for c in settings.pop("compressions")}
    lines: dict[Any, dict[str, Any]] = {
        c: {"compression": c, **sizes_of(embeddings, c)} for c, (embeddings, _) in models.items()
    }
    for what in ("step", "inference"):
        steps = {str(c): steps[what] for c, (_, steps) in models.items()}
        times = interleaved(steps, settings["repeats"], clock=clock)
        for c, line in lines.items():
            line |= flat(what, times[str(c)])
        if what == "step" and len(models) == 1:
            grown = psutil.Process().memory_info().rss - imported
            for line in lines.values():
                line["resident_growth"] = grown
    return [{**settings, **line} for line in lines.values()]


def measured(settings: dict[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(settings)],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return list(json.loads(done.stdout.splitlines()[-1]))


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
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall",
        help="cpu: time of one thread, for a busy machine; needs --threads 1",
    )  # fmt: skip
    parser.add_argument("--apart", action="store_true", help="a process of every model's own")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-model.jsonl"))
    arguments = parser.parse_args()
    if arguments.child:
        sys.stdout.write(json.dumps(child(json.loads(arguments.child))) + "\n")
        return
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu needs --threads 1")
    from lma.benchmarking import circumstances

    names = ("dim", "block", "kind", "optimizer", "popularity", "batch", "scale", "threads",
             "repeats", "clock")  # fmt: skip
    settings = {name: getattr(arguments, name) for name in names}
    began = time.perf_counter()
    names_of = [None, *arguments.compressions]
    groups = [[c] for c in names_of] if arguments.apart else [names_of]
    lines = [line for group in groups for line in measured({**settings, "compressions": group})]
    full = lines[0]
    for line in lines:
        with arguments.out.open("a") as file:
            about = {"benchmark": "kernels/whole_model", "together": not arguments.apart}
            own = {**line, **circumstances(), "threads": arguments.threads}
            file.write(json.dumps({**about, **own}) + "\n")
        name = "full" if line["compression"] is None else f"{line['compression']:g}x"
        shown = [f"{name:>6} serving {line['serving_bytes'] / 1e6:8.1f} MB"]
        for what in ("step", "inference"):
            median = line[f"{what}_median_ms"]
            shown.append(f"{what} {median:8.2f} ms ({median / full[f'{what}_median_ms']:.3f})")
        if arguments.apart:
            grown = line["resident_growth"]
            shown.append(f"resident {grown / 1e6:.1f} MB ({grown / full['resident_growth']:.3f})")
        sys.stdout.write("  ".join(shown) + "\n")
    sys.stdout.write(f"{time.perf_counter() - began:.0f} s\n")


if __name__ == "__main__":
    main()
