"""Log rows per second of the builders, from id arrays in memory: 26 one-hot fields.

    python benchmarks/signatures/builder_speed.py [--rows 65536] [--rounds 5]

Tokens are drawn from Zipf's law over 26 tables of 3 to 1,000,000 tokens.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from timing import in_turns, line

from lma.signatures import ContextCodeBuilder, MinHashBuilder, SignatureConfig

FIELDS = 26


def log(rows: int) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {f"C{i}": int(s) for i, s in enumerate(np.geomspace(3, 1_000_000, FIELDS))}
    # Rank r with probability proportional to 1 / (r + 1).
    columns = [
        np.minimum(np.exp(rng.random(rows) * np.log(size + 1)).astype(int) - 1, size - 1)
        for size in sizes.values()
    ]
    return sizes, np.stack(columns, 1), rng.integers(0, 2, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sizes, ids, labels = log(arguments.rows)
    builders = {}
    for similarity in ("rows", "context", "labelled_context"):
        config = SignatureConfig(similarity, num_codes=16)
        builders[f"min-hash {similarity}, 16 codes"] = MinHashBuilder(sizes, config)
    learned = ContextCodeBuilder(sizes, SignatureConfig(kind="learned"))
    learned.update(ids, None, labels)
    learned.next_pass()
    builders["context vectors, 32 dimensions, one pass"] = learned
    for threads in (1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        steps = {n: lambda b=b: b.update(ids, None, labels) for n, b in builders.items()}
        for name, seconds in in_turns(steps, arguments.rounds).items():
            line(name, seconds, arguments.rows, unit="log rows")


if __name__ == "__main__":
    main()
