"""The public MovieLens-1M protocol of CCE's code: its log, and the tables of what was measured.

Clustered compositional embeddings (Tsang & Ahle 2023, arXiv 2210.05974, code in
github.com/thomasahle/cce, `examples/movielens.py`): matrix factorisation of users and movies, 32
dimensions, ratings of 3 dropped, label rating > 3, two ratings of every user held out, AUC, and
each of the two tables has 256, 1024 or 4096 parameters per dimension. Held out here are two ratings
drawn at random (our copy has no times): one validates, the other tests.

    python benchmarks/quality/cce_protocol.py $LMA_DATA/ml-1m runs/cce-protocol
    for counts in weights serving; do
      lma compare runs/cce-protocol/data benchmarks/results/cce-protocol-$counts.jsonl \
        -c benchmarks/quality/cce-protocol-$counts.toml
    done
    python benchmarks/quality/cce_protocol.py --table
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from lma.data import Dataset, prepare
from lma.report import markdown_table, summarise
from lma.results import read_results

RESULTS = Path(__file__).resolve().parents[1] / "results"
DAY = 86_400
SCHEMA = """\
name = "movielens-1m, CCE protocol"
description = "MovieLens-1M without ratings of 3; two ratings of every user, at random, held out"
label = "liked"
one_hot = ["user", "movie"]
time = {column = "at", format = "epoch"}
"""


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


def tables() -> str:
    """Two Markdown tables: weights alone, and total bytes."""
    weights, serving = (
        read_results(RESULTS / f"cce-protocol-{counts}.jsonl") for counts in ("weights", "serving")
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
    """Prepare the log, or print the tables of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", help="folder with ratings.parquet")
    parser.add_argument("folder", type=Path, nargs="?", help="for the prepared log")
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    words = parser.parse_args()
    if words.table:
        print(tables())
        return
    if words.folder is None:
        parser.error("name the folder with ratings.parquet and one for the prepared log")
    print(f"prepared: {prepared(words.source, words.folder).path}")


if __name__ == "__main__":
    main()
