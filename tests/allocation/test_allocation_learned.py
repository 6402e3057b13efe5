"""Plans for learned codes: budgets, who gets private floats, and places that are all their own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lma
from lma.allocation import Budget, Lma, Table
from lma.errors import BudgetError
from lma.signatures import LogStats, SignatureTable, TableStats
from signature_cases import random_codes, signatures_of

DIM = 8


def stats_of(supports: list[list[int]]) -> LogStats:
    return LogStats.of([TableStats.of_supports(f"t{i}", s) for i, s in enumerate(supports)])


def learned(supports: list[list[int]], num_codes: int, code_bits: int) -> SignatureTable:
    sizes = {f"t{i}": len(s) for i, s in enumerate(supports)}
    kinds = dict.fromkeys(sizes, "learned")
    codes = random_codes(sizes, num_codes, code_bits)
    return signatures_of(codes, code_bits=code_bits, kinds=kinds)


def memory_of(
    supports: list[list[int]], budget: int | Budget, method: Lma, num_codes: int, code_bits: int
) -> lma.SharedMemory:
    tables = [Table(f"t{i}", len(s), DIM) for i, s in enumerate(supports)]
    signatures = learned(supports, num_codes, code_bits)
    return lma.SharedMemory(
        tables, method, budget=budget, signatures=signatures, stats=stats_of(supports)
    )


@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=150), min_size=1, max_size=4),
    st.integers(200, 12_000),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([(1, 3), (2, 4), (4, 5), (8, 2)]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.2]),
)
def test_budget_is_kept_and_the_report_is_true(
    supports: list[list[int]],
    budget: int,
    block_size: int,
    codes: tuple[int, int],
    private_share: float,
    hashed_share: float,
) -> None:
    method = Lma(block_size=block_size, private_share=private_share, hashed_share=hashed_share)
    try:
        memory = memory_of(supports, budget, method, *codes)
    except BudgetError:
        # Private tables, codebooks and one vector for the unsigned: no more than this.
        entries = 1 << codes[1]
        rows = sum(min(len(s), max(entries, 1)) + 1 for s in supports) + 1
        share = private_share * budget
        assert budget < 126 + 36 * len(supports) + 4 * DIM * rows + share
        return
    held = sum(tensor.nbytes for tensor in memory.state_dict().values())
    assert memory.memory_report().bytes.serving == held <= budget
    plan = memory.allocation.plan
    taken: dict[int, set[str]] = {}
    for table, support in zip(plan.tables, supports, strict=True):
        if table.private_dim < DIM:
            # Signed tokens are the most frequent ones: a prefix of the ranked ids.
            assert table.num_signed <= len(support)
            assert len(support) > 1 << codes[1]
        else:
            assert (table.num_private, table.num_signed) == (len(support), 0)
        places = memory.allocation.places(table.table, torch.arange(len(support)))
        assert places.shape == (len(support), DIM)
        for place in places[: table.num_signed].unique().tolist():
            taken.setdefault(place, set()).add(table.table)
    # Codebooks and private floats belong to one table each.
    assert all(len(owners) == 1 for owners in taken.values())


def test_equal_codes_read_equal_entries_and_private_floats_differ() -> None:
    supports = [[9] * 60]
    codes = np.zeros((60, 2), np.int64)
    signatures = signatures_of({"t0": codes}, code_bits=4, kinds={"t0": "learned"})
    memory = lma.SharedMemory(
        [Table("t0", 60, DIM)],
        Lma(block_size=1),
        budget=2200,
        signatures=signatures,
        stats=stats_of(supports),
    )
    share = memory.allocation.plan.tables[0]
    assert share.num_signed == 60
    assert 1 <= share.private_dim < DIM
    places = memory.allocation.places("t0", torch.arange(60))
    assert len(places[:, : share.private_dim].unique()) == 60 * share.private_dim
    assert (places[:, share.private_dim :] == places[:1, share.private_dim :]).all()


def test_codebooks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BudgetError, match="1000 bytes do not hold 1 codebooks of 256 entries"):
        memory_of([[3] * 500], 1000, Lma(), 4, 8)


def test_weights_alone_sign_every_token() -> None:
    memory = memory_of([[3] * 500], Budget(4000, "weights"), Lma(), 4, 5)
    assert memory.num_bytes().weights <= 4000
    assert memory.allocation.plan.num_signed == {"t0": 500}
