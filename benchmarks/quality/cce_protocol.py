"""The public MovieLens-1M protocol of CCE's code: its rivals and ours in one table.

Clustered compositional embeddings (Tsang & Ahle 2023, arXiv 2210.05974, code in
github.com/thomasahle/cce, `examples/movielens.py`): matrix factorisation of users and movies, 32
dimensions, ratings of 3 dropped, label rating > 3, two ratings of every user held out, AUC, and
each of the two tables has 256, 1024 or 4096 parameters per dimension. Held out here are two ratings
drawn at random (our copy has no times): one validates, the other tests.

    python benchmarks/quality/cce_protocol.py $LMA_DATA/ml-1m runs/cce-protocol --seeds 0,1,2
    python benchmarks/quality/cce_protocol.py --table

The first seed runs the whole grid; the others only what its validation rows chose. Stopped, it goes
on where it was.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lma.data import Dataset, prepare
from lma.report import Summary, markdown_table, summarise
from lma.results import RunResult, read_results
from lma.training import (
    METHODS,
    CompareConfig,
    ModelConfig,
    SignatureShelf,
    TrainingConfig,
    compare,
)

RESULTS = Path(__file__).resolve().parents[1] / "results"
DAY = 86_400
SCHEMA = """\
name = "movielens-1m, CCE protocol"
description = "MovieLens-1M without ratings of 3; two ratings of every user, at random, held out"
label = "liked"
one_hot = ["user", "movie"]
time = {column = "at", format = "epoch"}
"""
# Two tables of 256, 1024 and 4096 parameters for each of 32 dimensions.
BUDGETS = ("64KiB", "256KiB", "1MiB")
TRAINING = TrainingConfig(
    epochs=20, batch_size=4096, optimizer="adamw", weight_decay=0.01, patience=2
)
RATES = (3e-3, 1e-2, 1e-3)
# Codes as published, every chunk with hands of its own, no private rows; their bytes not counted.
MINHASH = {"private_share": 0.0, "block_size": 1}
GRID: dict[str, dict[str, list[dict[str, Any]]]] = {
    "weights": {
        "full": [{}],
        "hashing-trick": [{}],
        "hashed": [{}],
        "robe": [{}],
        "quotient-remainder": [{}],
        "low-dimension": [{}],
        "mixed-dimension": [{}],
        "tensor-train": [{}],
        "deep-hash": [{}],
        "cce": [{}],
        "lma-labelled-context": [
            {**MINHASH, "embedding_dim": dim, "num_codes": dim, "power": power}
            for dim, power in ((128, 1), (64, 1), (128, 2))
        ],
    },
    "serving": {
        "lma-learned": [
            {"embedding_dim": dim, "num_codes": codes, "code_bits": bits}
            for dim, codes, bits in (
                *((32, 8, 8), (64, 8, 8), (32, 4, 6), (32, 16, 8)),
                *((64, 8, 6), (32, 2, 6), (32, 4, 4)),
            )
        ],
        "lma-labelled-context": [{"embedding_dim": 64, "num_codes": 4, "power": 1}],
    },
}


def split(ratings: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Columns user, movie, liked, at: training rows on the first day, held-out ones on the second.

    A split by time gives the earlier half of the last day to validation, the later half to test.
    """
    ratings = ratings.filter(pl.col("rating") != 3)
    draw = pl.Series("draw", np.random.default_rng(seed).permutation(len(ratings)))
    place = pl.col("draw").rank("ordinal").over("user")
    return ratings.with_columns(draw).select(
        "user",
        "movie",
        liked=(pl.col("rating") > 3).cast(pl.Int8),
        at=pl.when(place == 1).then(DAY).when(place == 2).then(2 * DAY - 1).otherwise(0),
    )


def prepared(source: Path, folder: Path) -> Dataset:
    """The dataset in `folder`, made unless it is there."""
    if (folder / "data" / "meta.json").exists():
        return Dataset.open(folder / "data")
    folder.mkdir(parents=True, exist_ok=True)
    log, schema = folder / "log.parquet", folder / "schema.toml"
    split(pl.read_parquet(source / "ratings.parquet")).write_parquet(log)
    schema.write_text(SCHEMA)
    return prepare("table", log, folder / "data", schema=schema)


def lines(counts: str) -> Path:
    """The file of results whose budgets pay for weights alone, or for serving bytes."""
    return RESULTS / f"cce-protocol-{counts}.jsonl"


def grid(counts: str, method: str, rate: float) -> Iterator[CompareConfig]:
    """Every variant of a method at one learning rate, seed 0."""
    for settings in GRID[counts][method]:
        yield CompareConfig(
            (method,),
            BUDGETS,
            counts,
            (rate,),
            (0,),
            {method: settings},
            ModelConfig("gmf", embedding_dim=32),
            TRAINING,
        )


def repetition(summary: Summary, seeds: tuple[int, ...]) -> CompareConfig:
    """What validation rows of seed 0 chose for a method and a budget, with other seeds."""
    config = summary.runs[0].config
    method, model = config["method"], config["model"]
    return CompareConfig(
        (method["name"],),
        (method["budget"],) if method["budget"] else (),
        method["counts"],
        (config["training"]["learning_rate"],),
        seeds,
        {method["name"]: {**method["settings"], "embedding_dim": model["embedding_dim"]}},
        ModelConfig("gmf", embedding_dim=32),
        TRAINING,
    )


def measure(
    dataset: Dataset, counted: Sequence[str], rates: Sequence[float], seeds: tuple[int, ...]
) -> None:
    """All runs that the result files lack: the grid rate by rate, then the repetitions."""
    shelf = SignatureShelf(dataset)
    methods = [(c, m) for c in counted for m in GRID[c] if m in METHODS]
    found: dict[tuple[str, str], list[RunResult]] = {key: [] for key in methods}
    for rate in rates:
        for counts, method in methods:
            for config in grid(counts, method, rate):
                results, skipped = compare(dataset, config, lines(counts), shelf=shelf)
                found[counts, method] += results
                for run in results:
                    print(run.method, run.target, counts, config.settings[method], rate,
                          f"validation AUC {run.validation['auc']:.4f}", flush=True)  # fmt: skip
                for cell in skipped:
                    print(f"left out: {method} {cell.config.method.budget}: {cell.reason}")
    if seeds[1:]:
        for counts, method in methods:
            for summary in summarise(found[counts, method]):
                compare(dataset, repetition(summary, seeds[1:]), lines(counts), shelf=shelf)


def tables() -> str:
    """Two Markdown tables: weights alone, and total bytes."""
    weights, serving = (
        read_results(lines(counts)) if lines(counts).exists() else [] for counts in GRID
    )
    # Methods without codes hold what their weights weigh and a few bytes: one run serves both.
    plain = [run for run in weights if not run.bytes["signatures"]]
    return "\n".join(
        [
            markdown_table(summarise(weights), by="weights"),
            markdown_table(summarise(plain + serving), by="serving"),
        ]
    )


def main() -> None:
    """Measure, or print the tables of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", help="folder with ratings.parquet")
    parser.add_argument("folder", type=Path, nargs="?", help="for the prepared log")
    parser.add_argument("--seeds", default="0", help="0,1,2: the first one runs the grid")
    parser.add_argument("--counts", default=",".join(GRID), help="weights, serving or both")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="learning rates")
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    words = parser.parse_args()
    if words.table:
        print(tables())
        return
    if words.folder is None:
        parser.error("name the folder with ratings.parquet and one for the prepared log")
    rates = [float(rate) for rate in words.rates.split(",")]
    seeds = tuple(int(seed) for seed in words.seeds.split(","))
    counted = words.counts.split(",")
    measure(prepared(words.source, words.folder), counted, rates, seeds)


if __name__ == "__main__":
    main()
