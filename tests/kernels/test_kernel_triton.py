"""Triton's interpreter must be chosen before Triton is imported: its tests get processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: pip install triton (Linux)",
)
@pytest.mark.parametrize(
    ("tests", "interpret"), [("triton_interpreted.py", "1"), ("triton_compiled.py", "0")]
)
def test_triton_kernels(tests: str, interpret: str, tmp_path: Path) -> None:
    path = Path(__file__).parent / tests
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": interpret,
        "TRITON_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[100%]" in done.stdout
