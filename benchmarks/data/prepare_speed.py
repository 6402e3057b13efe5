"""Speed and memory of `prepare` on a generated log in Criteo's shape, beside a bare polars scan.

    python benchmarks/data/prepare_speed.py --rows 10000000 --folder /tmp/criteo --repeat 3

Cardinalities are Criteo Kaggle's times rows / 45.8 million, so that tokens per row are those of
the real log. Every step runs in a process of its own; steps take turns, so that a busy machine
slows all of them alike. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path

from measure import in_own_process, machine, measured

from lma.data import prepare, write_synthetic

KAGGLE_ROWS = 45_840_617


def log_of(rows: int, folder: Path) -> Path:
    path = folder / f"log-{rows}.tsv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_synthetic(path, rows=rows, scale=min(1.0, rows / KAGGLE_ROWS))
    return path


def scan(path: Path) -> None:
    """A bare scan: every column parsed to its type and read through."""
    import polars as pl

    names = ["label", *(f"I{j}" for j in range(1, 14)), *(f"C{f}" for f in range(1, 27))]
    schema = {name: pl.String() if name[0] == "C" else pl.Int64() for name in names}
    frame = pl.scan_csv(path, separator="\t", has_header=False, schema=schema, quote_char=None)
    frame.select(pl.all().count()).collect(engine="streaming")


def step(name: str, path: Path, out: Path) -> None:
    if name == "scan":
        result = measured(lambda: scan(path))
    else:
        result = measured(lambda: prepare("criteo", path, out, ids=name))
        shutil.rmtree(out)
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--small-rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--step", nargs=2, help="internal: one step of one log")
    arguments = parser.parse_args()
    if arguments.step:
        name, path = arguments.step
        step(name, Path(path), arguments.folder / "prepared")
        return
    log = log_of(arguments.rows, arguments.folder)
    small = log_of(arguments.small_rows, arguments.folder)
    own = ["--folder", str(arguments.folder), "--step"]
    runs = {"scan": [], "hashed": [], "dictionary": []}
    for _ in range(arguments.repeat):
        for name, found in runs.items():
            found.append(in_own_process(__file__, *own, name, str(log)))
    hashed_small = in_own_process(__file__, *own, "hashed", str(small))
    median = {n: statistics.median(run["wall_s"] for run in found) for n, found in runs.items()}
    peak = {n: max(run["peak_rss_mb"] for run in found) for n, found in runs.items()}
    result = {
        "benchmark": "prepare",
        "rows": arguments.rows,
        "bytes": log.stat().st_size,
        "runs": runs,
        "rows_per_s": {n: round(arguments.rows / seconds) for n, seconds in median.items()},
        "of_scan": {n: round(median["scan"] / median[n], 3) for n in ("hashed", "dictionary")},
        "peak_rss_mb": peak,
        "small_rows": arguments.small_rows,
        "hashed_small_peak_rss_mb": hashed_small["peak_rss_mb"],
        "criteo_kaggle_extrapolated_s": {
            n: round(median[n] * KAGGLE_ROWS / arguments.rows) for n in ("hashed", "dictionary")
        },
        **machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
