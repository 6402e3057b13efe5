"""Log rows per second of the builders, from id arrays in memory, and how it scales.

    python benchmarks/signatures/builder_speed.py [--rows 65536] [--rounds 11]

26 one-hot fields, 16 codes, tokens drawn from Zipf's law over tables of 3 to 1,000,000 tokens; then
one of these is changed at a time. The first line is resident memory per token.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from timing import in_turns, line, machine

from lma.signatures import ContextCodeBuilder, MinHashBuilder, SignatureConfig

FIELDS, CODES, LARGEST = 26, 16, 1_000_000


def log(
    rows: int, fields: int = FIELDS, largest: int = LARGEST
) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {f"C{i}": int(s) for i, s in enumerate(np.geomspace(3, largest, fields))}
    # Rank r with probability proportional to 1 / (r + 1).
    columns = [
        np.minimum(np.exp(rng.random(rows) * np.log(size + 1)).astype(int) - 1, size - 1)
        for size in sizes.values()
    ]
    return sizes, np.stack(columns, 1), rng.integers(0, 2, rows)


def resident_bytes() -> int:
    """Memory of this process that is in use now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def min_hash(rows: int, rounds: int, **change: int) -> None:
    """Rates of `rows` and `context` with one setting changed."""
    codes = change.pop("codes", CODES)
    sizes, ids, _ = log(rows, **change)
    facts = {"codes": codes, "fields": len(sizes), "tokens": sum(sizes.values())}
    for similarity in ("rows", "context"):
        builder = MinHashBuilder(sizes, SignatureConfig(similarity, num_codes=codes))
        step = {similarity: lambda b=builder, i=ids: b.update(i)}
        for name, seconds in in_turns(step, rounds).items():
            line(f"min-hash {name}", seconds, rows, unit="log rows", **facts)


def memory() -> None:
    """Resident bytes per token of a builder of which every token was touched."""
    tokens, batch = 10_000_000, 100_000
    config = SignatureConfig("rows", num_codes=CODES)
    # Once in small, so that compiled code is not counted.
    MinHashBuilder({"t": batch}, config).update(np.arange(batch)[:, None])
    before = resident_bytes()
    builder = MinHashBuilder({"t": tokens}, config)
    for first in range(0, tokens, batch):
        builder.update(np.arange(first, first + batch)[:, None])
    used = (resident_bytes() - before) / tokens
    facts = {"benchmark": "min-hash memory", "tokens": tokens, "codes": CODES}
    print(json.dumps({**facts, "bytes_per_token": round(used, 1), **machine()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    rows, rounds, threads = arguments.rows, arguments.rounds, torch.get_num_threads()
    memory()
    sizes, ids, labels = log(rows)
    builders: dict[str, MinHashBuilder | ContextCodeBuilder] = {}
    for similarity in ("rows", "context", "labelled_context"):
        config = SignatureConfig(similarity, num_codes=CODES)
        builders[f"min-hash {similarity}"] = MinHashBuilder(sizes, config)
    learned = ContextCodeBuilder(sizes, SignatureConfig(kind="learned"))
    learned.update(ids, None, labels)
    learned.next_pass()
    builders["context vectors, 32 dimensions, one pass"] = learned
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        steps = {n: lambda b=b: b.update(ids, None, labels) for n, b in builders.items()}
        for name, seconds in in_turns(steps, rounds).items():
            line(name, seconds, rows, unit="log rows", codes=CODES, fields=FIELDS)
    builders.clear()
    for codes in (4, 8, 32, 64, 128):
        min_hash(rows, rounds, codes=codes)
    for fields in (8, 16, 52):
        min_hash(rows, rounds, fields=fields)
    for largest in (10_000, 100_000, 10_000_000):
        min_hash(rows, rounds, largest=largest)


if __name__ == "__main__":
    main()
