"""Seconds from the start of Python to the end of the first training step, cold and warm.

    python benchmarks/kernels/start_up.py

"Cold": Numba compiles every kernel. "Warm": it finds them in its cache, as on every later start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lma.benchmarking import circumstances

STEP = """
import time
begin = time.perf_counter()
import torch, lma
from lma.allocation import Hashed
imported = time.perf_counter()
bag = lma.EmbeddingBagCollection(
    [lma.EmbeddingBagConfig(1000, 16, "a"), lma.EmbeddingBagConfig(1000, 16, "b")],
    method=Hashed(block_size=4), budget="4KB",
)
lma.FusedOptimizer(bag.memory, "adagrad")
bag(torch.zeros(64, 2, dtype=torch.int64)).sum().backward()
print(imported - begin, time.perf_counter() - imported)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm", "warm", "warm"):
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", STEP], check=True, capture_output=True, text=True,
                env={**os.environ, "NUMBA_CACHE_DIR": cache},
            )  # fmt: skip
            whole = time.perf_counter() - begin
            imported, first = (float(word) for word in done.stdout.split())
            line = {
                "benchmark": "kernels/start_up", "cache": name, "import_s": imported,
                "first_step_s": first, "process_s": whole, **circumstances(),
            }  # fmt: skip
            with Path("benchmarks/results/kernels-model.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            sys.stdout.write(
                f"{name}: import {imported:.2f} s, first step {first:.2f} s, "
                f"process {whole:.2f} s\n"
            )


if __name__ == "__main__":
    main()
