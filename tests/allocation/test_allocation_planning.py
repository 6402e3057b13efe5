"""`lma.plan` against a brute-force reading of its three rules."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lma
from lma.allocation import Budget, Lma, Plan, TablePlan
from lma.errors import BudgetError
from lma.signatures import LogStats, SignatureConfig, TableStats

SUPPORTS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=120), min_size=1, max_size=5)


def stats_of(supports: list[list[int]]) -> LogStats:
    return LogStats.of([TableStats.of_supports(f"t{i}", s) for i, s in enumerate(supports)])


def bytes_of(plan: Plan, dim: int) -> int:
    """Serving bytes of a plan, from the words of its docstring and the file format."""
    settings = 88 + 36 * len(plan.tables) + 2
    private = sum((t.num_private + 1) * t.private_dim * 4 for t in plan.tables if t.private_dim)
    codes = sum(t.num_signed for t in plan.tables) * -(-plan.num_codes * plan.code_bits // 8)
    return settings + private + codes + plan.num_blocks * plan.block_size * 4


def by_hand(
    supports: list[list[int]], budget: Budget, dim: int, method: Lma, config: SignatureConfig
) -> tuple[set[int], int] | None:
    """Tables with private rows, and the support threshold of signatures."""
    serving = budget.counts == "serving"
    left = budget.bytes - (88 + 36 * len(supports) + 2 if serving else 0)
    room = int(left * method.private_share)
    private: set[int] = set()
    for i in sorted(range(len(supports)), key=lambda i: len(supports[i])):
        cost = (len(supports[i]) + 1) * dim * 4
        if cost > room:
            break
        room -= cost
        private.add(i)
    spent = sum((len(supports[i]) + 1) * dim * 4 for i in private)
    others = [s for i, supports_ in enumerate(supports) if i not in private for s in supports_]
    threshold = config.min_support
    code_bytes = -(-config.num_codes * config.code_bits // 8)
    while serving and others:
        needed = sum(s >= threshold for s in others) * code_bytes
        if needed <= int((left - spent) * method.signature_share) // code_bytes * code_bytes:
            break
        if needed == 0:
            return None
        threshold += 1
    return private, threshold


@given(
    SUPPORTS,
    st.integers(300, 20_000),
    st.sampled_from([1, 4, 8]),
    st.sampled_from([0, 0.1, 0.5, 0.9]),
    st.sampled_from([0, 0.1, 0.6]),
    st.sampled_from([(4, 8), (8, 16), (3, 5)]),
    st.booleans(),
)
def test_plan_spends_as_it_says(
    supports: list[list[int]],
    size: int,
    dim: int,
    private_share: float,
    hashed_share: float,
    codes: tuple[int, int],
    serving: bool,
) -> None:
    budget = Budget(size, "serving" if serving else "weights")
    config = SignatureConfig(num_codes=codes[0], code_bits=codes[1], min_support=2)
    method = Lma(block_size=4, private_share=private_share, hashed_share=hashed_share)
    expected = by_hand(supports, budget, dim, method, config)
    try:
        plan = lma.plan(
            budget, stats_of(supports), embedding_dim=dim, method=method, signatures=config
        )
    except BudgetError as error:
        assert f"{size} bytes hold no block of 4 floats" in str(error)  # noqa: PT017
        assert size < 400 + 36 * 5 or expected is None or size < 2000
        return
    assert expected is not None
    private, threshold = expected
    for i, table in enumerate(plan.tables):
        if i in private:
            assert table == TablePlan(f"t{i}", 0, len(supports[i]), dim)
        else:
            assert table == TablePlan(f"t{i}", sum(s >= threshold for s in supports[i]))
    if len(private) < len(supports):
        assert plan.num_blocks >= 1
        if hashed_share:
            assert 1 <= plan.hashed_blocks < plan.num_blocks
            wanted = plan.num_blocks * hashed_share
            assert abs(plan.hashed_blocks - wanted) <= 1
        else:
            assert plan.hashed_blocks == 0
        if serving:
            # All of it is spent but for less than a block.
            assert size - 16 < bytes_of(plan, dim) <= size
    else:
        assert plan.num_blocks == plan.hashed_blocks == 0
        assert bytes_of(plan, dim) - 88 - 36 * len(supports) - 2 <= size
    assert plan.num_signed == {t.table: t.num_signed for t in plan.tables}


@given(SUPPORTS, st.integers(300, 20_000), st.sampled_from([4, 8]), st.sampled_from([0, 0.4]))
def test_what_is_planned_is_what_is_held(
    supports: list[list[int]], size: int, dim: int, private_share: float
) -> None:
    from lma.allocation import Table
    from signature_cases import random_signatures

    stats = stats_of(supports)
    method = Lma(block_size=2, private_share=private_share)
    tables = [Table(f"t{i}", len(s), dim) for i, s in enumerate(supports)]
    signatures = random_signatures({t.name: t.num_embeddings or 0 for t in tables}, 4, 8)
    config = SignatureConfig(num_codes=4, code_bits=8, min_support=1)
    try:
        plan = lma.plan(size, stats, embedding_dim=dim, method=method, signatures=config)
    except BudgetError:
        return
    memory = lma.SharedMemory(tables, method, budget=size, signatures=signatures, stats=stats)
    assert memory.allocation.plan == plan
    assert memory.num_bytes().serving == bytes_of(plan, dim) <= size


def test_available_signatures_bound_the_plan() -> None:
    from lma.allocation import Table
    from signature_cases import random_signatures

    stats = stats_of([[5] * 100, [4] * 100])
    tables = [Table("t0", 100, 8), Table("t1", 100, 8)]
    signatures = random_signatures({"t0": 30}, 4, 8)
    method = Lma(private_share=0)
    memory = lma.SharedMemory(tables, method, budget="4kB", signatures=signatures, stats=stats)
    assert memory.allocation.plan.num_signed == {"t0": 30, "t1": 0}


def test_without_stats_signed_tokens_count_alike() -> None:
    from lma.allocation import Table
    from signature_cases import random_signatures

    tables = [Table("a", None, 8), Table("b", None, 8)]
    signatures = random_signatures({"a": 30}, 4, 8)
    memory = lma.SharedMemory(tables, Lma(), budget="1kB", signatures=signatures)
    assert memory.allocation.plan.num_signed == {"a": 30, "b": 0}
    assert all(t.private_dim == 0 for t in memory.allocation.plan.tables)
    # More signed tokens than half of the budget pays for, all seen equally often: none is signed.
    many = lma.SharedMemory(
        tables, Lma(), budget="1kB", signatures=random_signatures({"a": 300}, 4, 8)
    )
    assert many.num_bytes().serving <= 1000


def test_budgets_too_small_are_refused() -> None:
    stats = stats_of([[5] * 100])
    for budget in (1, 50, "100B", 129):
        with pytest.raises(BudgetError, match="hold no block"):
            lma.plan(budget, stats)
    with pytest.raises(BudgetError, match="hold no block of 64 floats beside 0 private bytes"):
        lma.plan(300, stats, method=Lma(block_size=64))
    # One block for random codes and one for plain hashes, or none at all.
    assert lma.plan(126 + 4, stats, method=Lma(private_share=0)).num_blocks == 1
    with pytest.raises(BudgetError, match="hold no block"):
        lma.plan(126 + 4, stats, method=Lma(private_share=0, hashed_share=0.1))
    with pytest.raises(BudgetError, match="more than 0 bytes"):
        lma.plan(0, stats)
    with pytest.raises(ValueError, match="plan needs a budget"):
        lma.plan(None, stats)  # type: ignore[arg-type]


def test_a_compression_is_of_seen_tokens() -> None:
    stats = stats_of([[5] * 5000, [2] * 3000])
    plan = lma.plan("16x", stats)
    assert bytes_of(plan, 16) <= 8000 * 4 < bytes_of(plan, 16) + 4 * plan.block_size


def test_plan_goes_through_json() -> None:
    plan = lma.plan("8kB", stats_of([[5] * 300, [2] * 4]))
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.table("t1") == TablePlan("t1", 0, 4, 16)
    with pytest.raises(KeyError, match="the plan has no table 'x'"):
        plan.table("x")


# --- histograms -------------------------------------------------------------------------------


@given(SUPPORTS, st.integers(0, 400))
def test_threshold_admits_as_many_as_fit(supports: list[list[int]], places: int) -> None:
    stats = stats_of(supports)
    every = sorted((s for table in supports for s in table), reverse=True)
    threshold = stats.threshold(places)
    admitted = sum(s >= threshold for s in every)
    assert admitted <= places
    # The next support that occurs would be too many.
    below = [s for s in every if s < threshold]
    assert not below or sum(s >= max(below) for s in every) > places
    assert stats.num_tokens == len(every)
    for table, own in zip(stats.tables.values(), supports, strict=True):
        assert table.num_tokens == len(own)
        for s in (1, 2, 7, 61):
            assert table.tokens_with(s) == sum(x >= s for x in own)
        ranked = [*sorted(own, reverse=True), 0]
        assert [table.support_of_rank(r) for r in range(len(ranked))] == ranked


def test_tokens_never_seen_do_not_count() -> None:
    stats = TableStats.of_supports("a", np.array([0, 3, 0, 1, 3]))
    assert stats.supports.tolist() == [3, 1]
    assert stats.counts.tolist() == [2, 1]
    assert stats.num_tokens == 3


def test_of_a_sample_only_tokens_that_it_may_show_are_signed() -> None:
    # 1000 rows, one in ten sampled: 2 sampled rows are 20 rows, a quarter of them 5.
    config = SignatureConfig(similarity="rows", sample_rows=100)
    assert config.support_to_sign(1000) == 5
    assert config.support_to_sign(100) == config.support_to_sign(50) == 2
    assert SignatureConfig(similarity="rows").support_to_sign(10**9) == 2
    stats = stats_of([[900, 40, 20, 10, 6, 5, 5, 4, 4, 3, 2, 1], [500, 500]])
    assert stats.num_rows == 1000
    plan = lma.plan(Budget(10**6, "weights"), stats, method=Lma(private_share=0), signatures=config)
    assert plan.num_signed == {"t0": 7, "t1": 2}
