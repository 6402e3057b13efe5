"""Importing is light, the first call is not, and -O changes nothing."""

import subprocess
import sys

import pytest

LAZY = """
import sys
import lma
heavy = [name for name in ("numba", "llvmlite", "triton") if name in sys.modules]
assert not heavy, heavy
"""

FIRST_CALL = """
import sys, torch, lma
from lma.allocation import Hashed
bag = lma.EmbeddingBagCollection(
    [lma.EmbeddingBagConfig(100, 8, "a"), lma.EmbeddingBagConfig(None, 8, "b")],
    method=Hashed(), budget="4KB",
)
out = bag(torch.tensor([[1, -5], [99, 2**62]]))
out.sum().backward()
assert out.shape == (2, 16) and bag.memory.weight.grad is not None
assert "numba" in sys.modules
try:
    bag(torch.tensor([[100, 0]]))
except IndexError as error:
    print(error)
try:
    bag(torch.tensor([1, 2, 3]), torch.tensor([0, 2, 1, 2, 3]))
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("options", [[], ["-O"]], ids=["", "-O"])
def test_lma_is_imported_without_numba(options: list[str]) -> None:
    subprocess.run([sys.executable, *options, "-c", LAZY], check=True, timeout=100)


@pytest.mark.parametrize("options", [[], ["-O"]], ids=["", "-O"])
def test_the_first_call_and_its_errors(options: list[str]) -> None:
    command = [sys.executable, *options, "-W", "error", "-c", FIRST_CALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("id 100 of table 'a' is outside [0, 100)")
    assert second.startswith("offsets must not descend, found 2 then 1")
