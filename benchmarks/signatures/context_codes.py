"""Context codes: rows per second and pass, ten million tokens quantised, bytes per signed token.

    python benchmarks/signatures/context_codes.py [--tokens 10000000] [--rows 65536] [--hashed]
                                                  [--iterations 60]

Speed: 26 one-hot fields of 3 to 1,000,000 tokens (Zipf), 32 dimensions, ids in memory. Scale: every
token of one field in two rows beside one of 1,000; 32 dimensions, 4 codes of 8 bits. Resident
memory is what the system reports, less what it was before the builder was made. With fewer
iterations on the rows kept in memory vectors are worse and memory is the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np
import torch
from builder_speed import log
from scale import peak_rss_mb
from timing import in_turns, line, machine

from lma.hashing import combine
from lma.signatures import ContextCodeBuilder, SignatureConfig, context_start

BATCH = 65_536
ITEMS = 1000
FEW = 8  # fields of a chosen context


def passes(rows: int, rounds: int) -> None:
    sizes, ids, labels = log(rows)
    builders: dict[str, ContextCodeBuilder] = {}
    kinds = [(s, ()) for s in ("context", "labelled_context", "positive_context")]
    for similarity, fields in (*kinds, ("context", tuple(sizes)[:FEW])):
        config = SignatureConfig(similarity, kind="learned", passes=1, context_fields=fields)
        builder = ContextCodeBuilder(sizes, config)
        builder.update(ids, None, labels)
        builder.next_pass()
        name = f"{similarity} of {FEW} fields" if fields else similarity
        builders[f"{name}, one pass"] = builder
    builders["counting pass"] = ContextCodeBuilder(sizes, SignatureConfig(kind="learned"))

    def on(threads: int, builder: ContextCodeBuilder) -> None:
        torch.set_num_threads(threads)
        builder.update(ids, None, labels)

    # One thread and two take turns as well, so that their ratio means something.
    steps = {
        (name, threads): lambda b=builder, t=threads: on(t, b)
        for name, builder in builders.items()
        for threads in (1, 2)
    }
    for (name, threads), seconds in in_turns(steps, rounds).items():
        torch.set_num_threads(threads)
        line(name, seconds, rows, unit="log rows")


def rows_of(tokens: int, hashed: bool) -> Iterator[np.ndarray]:
    """Every token twice, in another order each time, with one of the items of its kind."""
    for first in range(0, 2 * tokens, BATCH):
        row = np.arange(first, min(first + BATCH, 2 * tokens), dtype=np.int64)
        token = row % tokens * 7_368_787 % tokens
        kind = token % 20
        item = (combine(np.uint64(5), row) % np.uint64(50)).view(np.int64) * 20 + kind
        yield np.stack([token * 0x9E3779B97F4A7C1 if hashed else token, item], 1)


def scale(tokens: int, hashed: bool) -> None:
    torch.set_num_threads(2)
    sizes = {"token": None if hashed else tokens, "item": ITEMS}
    config = SignatureConfig("context", kind="learned", passes=2)
    fit(sizes, config, 70_000, hashed)  # kernels are loaded, k-means has seen a whole sample
    before = peak_rss_mb()
    found, seconds = fit(sizes, config, tokens, hashed)
    report = {
        "benchmark": "context codes of many tokens",
        "tokens": tokens,
        "iterations_at_most": context_start.ITERATIONS,
        "ids": "hashed" if hashed else "ranked",
        **{f"{name}_s": round(value, 1) for name, value in seconds.items()},
        "lost_energy": round(found["token"], 4),
        "rss_mb_before": before,
        "peak_rss_mb": peak_rss_mb(),
        "bytes_per_signed_token": round((peak_rss_mb() - before) * 1e6 / tokens, 1),
        **machine(),
    }
    print(json.dumps(report), flush=True)


def fit(
    sizes: dict[str, int | None], config: SignatureConfig, tokens: int, hashed: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Energy that codes lose per table; seconds of every step, on the wall and of processors."""
    builder = ContextCodeBuilder({**sizes, "token": sizes["token"] and tokens}, config)
    seconds = {}

    def took(step: str, wall: float, processor: float) -> None:
        seconds[step] = time.perf_counter() - wall
        seconds[f"{step}_processor"] = time.process_time() - processor

    for number in range(builder.num_passes):
        begin = time.perf_counter(), time.process_time()
        for batch in rows_of(tokens, hashed):
            builder.update(batch)
        took(f"pass_{number}", *begin)
        begin = time.perf_counter(), time.process_time()
        builder.next_pass()
        took(f"between_{number}", *begin)
    begin = time.perf_counter(), time.process_time()
    table = builder.finish()
    took("quantise", *begin)
    return table.provenance["lost_energy"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10_000_000, help="0: speed alone")
    parser.add_argument("--rows", type=int, default=65_536, help="0: scale alone")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=context_start.ITERATIONS, help="at most")
    parser.add_argument("--hashed", action="store_true", help="ids of any value, not ranked")
    arguments = parser.parse_args()
    context_start.ITERATIONS = arguments.iterations
    if arguments.rows:
        passes(arguments.rows, arguments.rounds)
    if arguments.tokens:
        scale(arguments.tokens, arguments.hashed)


if __name__ == "__main__":
    main()
