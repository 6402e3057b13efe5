"""Rows per second of shuffled batches from warm shards: 26 ids, 13 numbers and their 13 flags.

    python benchmarks/data/loader_speed.py --folder /tmp/criteo --rows 2000000

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from measure import machine
from prepare_speed import log_of

from lma.data import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=16_384)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    log = log_of(arguments.rows, arguments.folder)
    dataset = prepare("criteo", log, arguments.folder / "loader")
    rows = dataset.num_rows("train")
    result = {"benchmark": "loader", "rows": rows, "batch_size": arguments.batch_size}
    for name, ahead in (("prefetch", 2), ("one_thread", 0)):
        speeds = []
        # The first epoch warms up.
        for epoch in range(arguments.epochs + 1):
            start = time.perf_counter()
            for _ in dataset.batches(
                "train", arguments.batch_size, shuffle=True, epoch=epoch, prefetch_batches=ahead
            ):
                pass
            speeds.append(rows / (time.perf_counter() - start))
        fifths = statistics.quantiles(speeds[1:], n=5)
        result[name] = {
            "rows_per_s": round(statistics.median(speeds[1:])),
            "rows_per_s_20_80": [round(fifths[0]), round(fifths[-1])],
        }
    print(json.dumps({**result, **machine()}))


if __name__ == "__main__":
    main()
