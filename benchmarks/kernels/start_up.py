"""Seconds from the start of Python to the end of the first training step, cold and warm.

    python benchmarks/kernels/start_up.py

"Cold": Numba compiles every kernel. "Warm": it finds them in its cache, as on every later start.
Python's own bytecode is there in both, as pip and the first import leave it on a user's machine:
a first start that is not counted writes it, whatever PYTHONDONTWRITEBYTECODE says outside.
"""

from __future__ import annotations

import argparse
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


def start(cache: Path, bytecode: Path) -> tuple[float, float, float]:
    """Seconds of the imports, of what follows, and of the whole process."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"NUMBA_CACHE_DIR": str(cache), "PYTHONPYCACHEPREFIX": str(bytecode)}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", STEP], check=True, capture_output=True, text=True, env=environment
    )
    whole = time.perf_counter() - begin
    imported, first = (float(word) for word in done.stdout.split())
    return imported, first, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warm", type=int, default=5, help="starts on the warm cache")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernels-model.jsonl"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bytecode = Path(folder, "bytecode")
        start(Path(folder, "uncounted"), bytecode)
        for name in ("cold", *["warm"] * arguments.warm):
            imported, first, whole = start(Path(folder, "cache"), bytecode)
            line = {
                "benchmark": "kernels/start_up", "cache": name, "import_s": imported,
                "first_step_s": first, "process_s": whole, **circumstances(),
            }  # fmt: skip
            with arguments.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            sys.stdout.write(
                f"{name}: import {imported:.2f} s, first step {first:.2f} s, "
                f"process {whole:.2f} s\n"
            )


if __name__ == "__main__":
    main()
