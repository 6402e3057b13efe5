"""Pooling over vectors that are not whole rows, judged by torch's EmbeddingBag over a copy.

For any allocation, gather every token's vector into a full table and let torch pool that: the
outputs must be close, and the gradient of the memory must be torch's table gradient, added up
over the places that the tokens share.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import lma
from lma.allocation import Cafe, Cce, Hashed, HashingTrick, Lma, QuotientRemainder, Robe, Table
from lma.allocation.cce import CceAllocation
from lma.allocation.quotient_remainder import QuotientRemainderAllocation
from lma.kernels.reference.pooling import pool
from signature_cases import random_signatures

SIZE, DIM = 40, 8
METHODS = {
    "hashed floats": Hashed(),
    "hashed blocks": Hashed(block_size=2),
    "hashed rows": Hashed(block_size=8),
    "robe": Robe(4),
    "hashing trick": HashingTrick(),
    "lma floats": Lma(),
    "lma blocks": Lma(block_size=4),
    "lma with private tables": Lma(block_size=4, private_share=0.6),
    "quotient-remainder": QuotientRemainder(),
    "cce": Cce(columns=2),
    "cafe": Cafe(),
}
MODES = ["sum", "mean", "max"]


def memory_of(method: object, dtype: torch.dtype, sparse: bool) -> lma.SharedMemory:
    return lma.SharedMemory(
        [Table("a", SIZE, DIM)],
        method,
        budget=900,
        signatures=random_signatures({"a": 20}, 4, 8),
        dtype=dtype,
        sparse=sparse,
        init_std=1.0,
    )


def everything(memory: lma.SharedMemory, weight: torch.Tensor) -> torch.Tensor:
    """The full table that the memory stands for, by the allocation alone."""
    allocation = memory.allocation
    ids, number = torch.arange(SIZE), torch.zeros(1, dtype=torch.int64)
    if isinstance(allocation, (QuotientRemainderAllocation, CceAllocation)):
        # A product or a sum, which places cannot say.
        return allocation.vectors(weight, ids, number, allocation.group(0), False)
    return weight.flatten()[allocation.places("a", ids)]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", METHODS)
@given(
    lengths=st.lists(st.integers(0, 4), max_size=6),
    seed=st.integers(0, 99),
    weighted=st.booleans(),
    padding=st.none() | st.integers(0, SIZE - 1),
)
@settings(max_examples=6)
def test_bags_over_shared_memory(
    name: str,
    mode: str,
    sparse: bool,
    lengths: list[int],
    seed: int,
    weighted: bool,
    padding: int | None,
) -> None:
    if sparse and mode == "max":
        return
    torch.manual_seed(seed)
    memory = memory_of(METHODS[name], torch.float64, sparse)
    bag = lma.EmbeddingBag(
        SIZE, DIM, mode=mode, padding_idx=padding, table="a", memory=memory,
        include_last_offset=True,
    )  # fmt: skip
    ids = torch.randint(0, SIZE, (sum(lengths),))
    if padding is not None and len(ids):
        ids[:: seed % 3 + 1] = padding
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    factors = None
    if weighted and mode == "sum":
        factors = torch.randn(len(ids), dtype=torch.float64, requires_grad=True)
    found = bag(ids, offsets, factors)

    weight = memory.weight.detach().clone().requires_grad_()
    copied = None if factors is None else factors.detach().clone().requires_grad_()
    expected = functional.embedding_bag(
        ids, everything(memory, weight), offsets, mode=mode, per_sample_weights=copied,
        padding_idx=padding, include_last_offset=True,
    )  # fmt: skip
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(expected)
    found.backward(cotangent)
    expected.backward(cotangent)
    gradient = memory.weight.grad
    assert gradient.is_sparse == sparse
    torch.testing.assert_close(gradient.to_dense() if sparse else gradient, weight.grad)
    if factors is not None:
        torch.testing.assert_close(factors.grad, copied.grad)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_summed_in_float32(mode: str, dtype: torch.dtype) -> None:
    memory = memory_of(Hashed(block_size=4), dtype, False)
    bag = lma.EmbeddingBag(SIZE, DIM, mode=mode, table="a", memory=memory)
    ids = torch.randint(0, SIZE, (1, 3000), generator=torch.Generator().manual_seed(0))
    table = everything(memory, memory.weight.detach()).double()
    exact = functional.embedding_bag(ids, table, mode=mode)
    found = bag(ids)
    assert found.dtype == dtype
    # Float32 sums of 3000 terms, then one rounding: half a unit in the last place and a little.
    unit = torch.finfo(dtype).eps
    error = (found.double() - exact).abs()
    assert bool((error <= 0.51 * unit * exact.abs() + 3000 * 2**-24 * 4).all())


@pytest.mark.parametrize("name", ["hashed floats", "hashed blocks", "robe", "lma blocks"])
def test_ties_of_max_move_one_entry(name: str) -> None:
    memory = memory_of(METHODS[name], torch.float64, False)
    bag = lma.EmbeddingBag(SIZE, DIM, mode="max", table="a", memory=memory)
    with torch.no_grad():
        memory.weight.fill_(0.5)
    ids = torch.tensor([[7, 9, 7, 11]])
    bag(ids).sum().backward()
    # Of equal entries the first has the gradient, as in torch.
    expected = torch.zeros(memory.weight.numel(), dtype=torch.float64)
    for place in memory.allocation.places("a", torch.tensor([7]))[0].tolist():
        expected[place] += 1
    assert torch.equal(memory.weight.grad.flatten(), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["hashed blocks", "lma blocks"])
def test_nan_stays_in_its_bag(name: str, mode: str) -> None:
    memory = memory_of(METHODS[name], torch.float32, False)
    bag = lma.EmbeddingBag(SIZE, DIM, mode=mode, table="a", memory=memory)
    places = memory.allocation.places("a", torch.arange(SIZE))
    bad = int(places[3, 0])
    with torch.no_grad():
        memory.weight.view(-1)[bad] = torch.nan
    ids = torch.tensor([[0, 3], [1, 2], [3, 5], [8, 6]])
    found = bag(ids)
    expected = (places[ids] == bad).any(1)
    assert torch.equal(found.isnan(), expected)
    found.nansum().backward()


@pytest.mark.parametrize("mode", MODES)
def test_pooling_by_hand(mode: str) -> None:
    vectors = torch.tensor([[1.0, -5.0], [3.0, -6.0], [2.0, -7.0]], requires_grad=True)
    offsets = torch.tensor([0, 2, 2, 3])
    expected = {
        "sum": [[4.0, -11.0], [0.0, 0.0], [2.0, -7.0]],
        "mean": [[2.0, -5.5], [0.0, 0.0], [2.0, -7.0]],
        "max": [[3.0, -5.0], [0.0, 0.0], [2.0, -7.0]],
    }
    gradients = {
        "sum": [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]],
        "mean": [[0.5, 0.5], [0.5, 0.5], [1.0, 1.0]],
        "max": [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
    }
    found = pool(vectors, offsets, mode)
    assert found.tolist() == expected[mode]
    found.sum().backward()
    assert vectors.grad.tolist() == gradients[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [lambda: Hashed(block_size=2), lambda: Lma(block_size=2)])
def test_float64_gradients_by_differences(mode: str, make: Callable) -> None:
    memory = memory_of(make(), torch.float64, False)
    ids, offsets = torch.tensor([3, 25, 7, 3]), torch.tensor([0, 3, 3])
    number, group = torch.zeros(1, dtype=torch.int64), memory.allocation.group(0)

    def pooled(weight: torch.Tensor) -> torch.Tensor:
        vectors = memory.allocation.vectors(weight, ids, number, group, False)
        return pool(vectors, torch.cat([offsets, torch.tensor([4])]), mode)

    weight = memory.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(pooled, weight, fast_mode=True)
