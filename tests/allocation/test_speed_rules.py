"""Where only a budget is given: block size and form of the gradient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lma
from lma.allocation import Budget, Lma, fast_block_size, gradient_mode
from lma.signatures import LogStats, TableStats
from signature_cases import random_signatures


@given(st.floats(0, 1e9), st.lists(st.integers(1, 300), max_size=5))
def test_blocks_keep_four_chunks_and_many_blocks(floats: float, dims: list[int]) -> None:
    size = fast_block_size(floats, dims)
    assert size in (1, 2, 4, 8, 16)
    fits = [
        s for s in (1, 2, 4, 8, 16)
        if s == 1 or (floats / s >= 1024 and all(d % s == 0 and d // s >= 4 for d in dims))
    ]  # fmt: skip
    assert size == max(fits)


@pytest.mark.parametrize(
    ("floats", "block", "mode", "without_fusing"),
    [
        # Measured, docs/results/kernels.md: 851,968 floats a step.
        (17_000, 1, "dense", "dense"),
        (1_704_000, 1, "fused", "dense"),
        (27_260_000, 1, "fused", "sparse"),
        (85_000, 4, "fused", "dense"),
        (6_815_000, 4, "fused", "sparse"),
        (17_000, 16, "fused", "dense"),
        (1_704_000, 16, "fused", "sparse"),
    ],
)
def test_the_form_of_a_gradient_is_the_measured_one(
    floats: int, block: int, mode: str, without_fusing: str
) -> None:
    assert gradient_mode(floats, block, 2048 * 26 * 16) == mode
    assert gradient_mode(floats, block, 2048 * 26 * 16, fused=False) == without_fusing


def stats() -> LogStats:
    return LogStats.of([TableStats.of_supports(name, np.full(50_000, 9)) for name in "ab"])


def test_plan_chooses_from_the_budget() -> None:
    small, large = lma.plan("10KB", stats()), lma.plan("4MB", stats(), embedding_dim=64)
    assert (small.block_size, small.gradients) == (2, "dense")
    assert (large.block_size, large.gradients) == (16, "fused")
    assert lma.plan("10KB", stats(), batch_size=8).gradients == "fused"
    assert lma.plan("4MB", stats(), method=Lma()).block_size == 1
    assert lma.plan(Budget(4_000_000, precision="int8"), stats()).gradients == "dense"


def test_a_memory_of_a_budget_alone_is_that_of_the_plan() -> None:
    plan = lma.plan("200KB", stats())
    tables = [lma.allocation.Table(name, 50_000, 16) for name in "ab"]
    signatures = random_signatures(plan.num_signed, plan.num_codes, plan.code_bits)
    memory = lma.SharedMemory(tables, budget="200KB", signatures=signatures, stats=stats())
    assert memory.allocation.plan.block_size == plan.block_size == 4
    assert memory.weight.shape[1] == 4
