"""A table of 20 million signatures: building its index, loading it, looking tokens up.

    python benchmarks/signatures/table_lookup.py [--tokens 20000000]

Lookups of 53,248 random keys (codes of 8 bytes) on one thread, in turns with torch gathering as
many random rows of 64 bytes from an array of the same number of rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time

import numpy as np
import torch
from timing import in_turns, line, machine

from lma.signatures import SignatureConfig, SignatureTable
from lma.signatures.sections import SectionParts, make_table
from lma.signatures.tokens import KeyedTokens

LOOKUPS = 53_248


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=20_000_000)
    count = parser.parse_args().tokens
    rng = np.random.default_rng(0)
    ids = rng.permutation(count).astype(np.int64) * 0x9E3779B97F4A7C1
    codes = rng.integers(0, 256, (count, 8), dtype=np.uint8)
    config = SignatureConfig("context", num_codes=8, code_bits=8)
    begin = time.perf_counter()
    table = make_table([SectionParts.of(KeyedTokens("t", ids[:1]), ids, codes, config)], 0, {})
    built = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        table.save(folder)
        begin = time.perf_counter()
        table = SignatureTable.load(folder)
        loaded = time.perf_counter() - begin
        torch.set_num_threads(1)
        chosen = torch.from_numpy(rng.choice(ids, LOOKUPS))
        dense = torch.zeros(count, 16)
        rows = torch.from_numpy(rng.integers(0, count, LOOKUPS))
        steps = {
            "find slots": lambda: table.find("t", chosen),
            "gather 64-byte rows": lambda: dense[rows],
        }
        for name, seconds in in_turns(steps, 15).items():
            line(name, seconds, LOOKUPS, unit="tokens", tokens=count)
    section = table.section("t")
    found = {
        "benchmark": "fingerprint index",
        "tokens": count,
        "build_s": round(built, 2),
        "load_s": round(loaded, 3),
        "load": round(count / (section.num_buckets * 8), 4),
        "overflow": section.num_overflow,
        "index_bytes_per_token": round(table.index_bytes / count, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        **machine(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
