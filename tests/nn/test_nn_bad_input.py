"""Wrong input is a Python error from the public module, with `python -O` too, never a crash."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lma
from lma.allocation import Full, Hashed

METHODS = {"fused": Hashed(block_size=4), "full": Full()}
ONE_HOT, FLAT = torch.tensor([[1, 2], [3, 4]]), torch.tensor([1, 2, 3, 4])
ENDS, BEGINS = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 2])
META = torch.device("meta")

Call = tuple[tuple[object, ...], type[Exception], str]
DTYPE = [
    ((ONE_HOT.double(),), TypeError, "ids must be int32 or int64, found torch.float64"),
    ((ONE_HOT.bool(),), TypeError, "ids must be int32 or int64, found torch.bool"),
    ((ONE_HOT.to(META),), ValueError, "ids are on meta, the memory on cpu: move one of them"),
    ((ONE_HOT.to_sparse(),), TypeError, "ids must be a dense tensor, found torch.sparse_coo"),
    ((ONE_HOT + 1,), IndexError, r"id 5 of table '\w+' is outside \[0, 5\)"),
    ((ONE_HOT - 2,), IndexError, r"id -1 of table '\w+' is outside \[0, 5\)"),
    ((ONE_HOT + 2**62,), IndexError, r"is outside \[0, 5\)"),
]  # fmt: skip


def bags(offsets: torch.Tensor) -> list[Call]:
    """What both kinds of bags refuse; `offsets` would be right."""
    ones = torch.ones(4)
    return [
        ((FLAT, offsets.double()), TypeError, "offsets must be a 1-D int32 or int64 tensor"),
        ((FLAT, torch.tensor(0)), TypeError, r"offsets must be a 1-D .* found torch.int64 \[\]"),
        ((FLAT, offsets.tolist()), TypeError, "offsets must be a tensor, found list"),
        ((FLAT, offsets.to_sparse()), TypeError, "offsets must be a dense tensor, found torch.spa"),
        ((FLAT, offsets.to(META)), ValueError, "offsets are on meta, the ids on cpu"),
        ((FLAT, offsets + 1), ValueError, r"offsets\[0\] must be 0, found 1|must end at"),
        ((FLAT, torch.where(offsets == 2, 9, offsets)), ValueError, "must not descend, found 9"),
        ((FLAT, torch.where(offsets == 2, -1, offsets)), ValueError, r"descend, found \d then -1"),
        ((FLAT, offsets, ones[:3]), ValueError, r"per_sample_weights must have the shape of"),
        ((FLAT, offsets, [1.0] * 4), TypeError, "per_sample_weights must be a tensor, found list"),
        ((FLAT, offsets, ones.to_sparse()), TypeError, "per_sample_weights must be a dense tensor"),
        ((FLAT, offsets, ones.to(META)), ValueError, "per_sample_weights are on meta, the ids on"),
        ((FLAT, offsets, ones.long()), TypeError, "must be floats, found torch.int64"),
    ]  # fmt: skip


def collection(method: str) -> Callable[..., torch.Tensor]:
    tables = [lma.EmbeddingBagConfig(5, 8, "a"), lma.EmbeddingBagConfig(5, 8, "b")]
    return lma.EmbeddingBagCollection(tables, method=METHODS[method], budget="4KB")


def bag(method: str) -> Callable[..., torch.Tensor]:
    return lma.EmbeddingBag(5, 8, mode="sum", method=METHODS[method], budget="4KB")


def embedding(method: str) -> Callable[..., torch.Tensor]:
    return lma.Embedding(5, 8, method=METHODS[method], budget="4KB")


def padded_bag(method: str) -> Callable[..., torch.Tensor]:
    return lma.EmbeddingBag(5, 8, padding_idx=1, method=METHODS[method], budget="4KB")


def padded(method: str) -> Callable[..., torch.Tensor]:
    return lma.Embedding(5, 8, 1, method=METHODS[method], budget="4KB")


LIST: Call = (([1, 2],), TypeError, "ids must be a tensor, found list")
CASES = [
    *((collection, call) for call in [*DTYPE, *bags(ENDS)]),
    *((bag, call) for call in [*DTYPE, *bags(BEGINS)]),
    *((make, call) for make in (embedding, padded, padded_bag) for call in [*DTYPE, LIST]),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("make", "call"), CASES)
def test_bad_input_is_an_error(make: Callable, call: Call, method: str) -> None:
    arguments, error, message = call
    module = make(method)
    with pytest.raises(error, match=message):
        module(*arguments)


def test_and_without_assertions() -> None:
    """Every case again under `python -O`, in a process that may crash."""
    command = [
        sys.executable, "-O", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W",
        "ignore::pytest.PytestConfigWarning", f"{Path(__file__)}::test_bad_input_is_an_error",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[100%]" in done.stdout
