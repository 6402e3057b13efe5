"""A log of 100 million rows and 100 million distinct tokens, signed in bounded memory.

    python benchmarks/signatures/scale.py [--rows 100000000] [--max-tokens 0] [--budget 64000000]
                                          [--checkpoint FILE]

Four fields: two of hashed ids, of which about half occur once and the rest follow Zipf's law over
10 million, and two of 1,000 and 24 ids. Tokens are counted, the budget decides which are signed,
and a second pass makes their min-hash codes. Memory is the peak of resident memory that the system
reports for the process, imports and all; a line says what it was when tokens were counted, another
when the table was done. With a checkpoint, a killed run goes on when it is called again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from timing import machine

from lma.hashing import combine
from lma.signatures import FitCheckpoint, SignatureConfig, fit_signatures

BATCH = 65_536
POOL = 10_000_000
FRESH = {"user": 0.55, "ad": 0.45}


class Log:
    """Rows made as they are read: row r is the same in every pass."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        sizes = {"user": None, "ad": None, "site": 1000, "hour": 24}
        self.schema = SimpleNamespace(
            features=[SimpleNamespace(name=n, num_embeddings=s) for n, s in sizes.items()]
        )

    def num_rows(self, split: str) -> int:
        """All of them are training rows."""
        return self.rows

    def batches(self, split: str, size: int, start_batch: int = 0) -> Iterator[SimpleNamespace]:
        """`BATCH` rows each, whatever is asked for."""
        for first in range(start_batch * BATCH, self.rows, BATCH):
            row = np.arange(first, min(first + BATCH, self.rows), dtype=np.int64)
            columns = [tokens(row, number, share) for number, share in enumerate(FRESH.values())]
            draw = uniform(row, 9)
            columns.append((1000 * draw**3).astype(np.int64))
            columns.append((24 * uniform(row, 10)).astype(np.int64))
            yield SimpleNamespace(
                values=np.stack(columns, 1), offsets=None, labels=(draw < 0.25).astype(np.int64)
            )


def uniform(row: np.ndarray, stream: int) -> np.ndarray:
    """Numbers in [0, 1), a hash of the row's number."""
    return (combine(np.uint64(stream), row) >> np.uint64(11)) * 2.0**-53


def tokens(row: np.ndarray, field: int, fresh: float) -> np.ndarray:
    """Ids that occur once with probability `fresh`, else rank r of the pool with 1 / (r + 1)."""
    once = combine(np.uint64(100 + field), row)
    rank = np.exp(uniform(row, 20 + field) * np.log(POOL + 1)).astype(np.int64)
    often = combine(np.uint64(200 + field), rank)
    return np.where(uniform(row, 30 + field) < fresh, once, often).view(np.int64)


def peak_rss_mb() -> int:
    """The system's high-water mark of resident memory, 10^6 bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [part for part in status.splitlines() if part.startswith("VmHWM")]
    return round(int(line.split()[1]) * 1024 / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--max-tokens", type=int, default=0, help="per hashed field; 0: all")
    parser.add_argument("--budget", type=int, default=64_000_000, help="bytes of codes and index")
    parser.add_argument("--checkpoint", type=Path, help="file to go on from")
    arguments = parser.parse_args()
    rows, begin = arguments.rows, time.perf_counter()
    facts = {"rows": rows, "ids": 4 * rows, "max_tokens": arguments.max_tokens}

    def report(benchmark: str, **found: object) -> None:
        found.update(peak_rss_mb=peak_rss_mb(), elapsed_s=round(time.perf_counter() - begin))
        print(json.dumps({"benchmark": benchmark, **facts, **found, **machine()}), flush=True)

    def progress(done: int, total: int, tokens_seen: int) -> None:
        if done == rows:
            report("scale: counted", tokens_held=tokens_seen)

    torch.set_num_threads(2)
    table = fit_signatures(
        Log(rows),
        SignatureConfig("context", num_codes=8, code_bits=16),
        budget_bytes=arguments.budget,
        max_tokens=arguments.max_tokens or None,
        progress=progress,
        checkpoint=arguments.checkpoint
        and FitCheckpoint(arguments.checkpoint, str(facts), every_rows=rows // 2),
    )
    report(
        "scale: signed",
        signed={s.table: s.num_signed for s in table.sections},
        table_bytes=table.signature_bytes + table.index_bytes,
        may_miss_tokens_of_rows=table.provenance.get("may_miss_tokens_of_rows", {}),
    )


if __name__ == "__main__":
    main()
