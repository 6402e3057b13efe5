"""Plans for learned codes: the budget is kept to the byte and spent in the stated order."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import lma
from lma.allocation import Budget, Lma, LmaAllocation, Table
from lma.allocation.learned_plan import affordable_code_bits
from lma.allocation.planning import make_plan
from lma.errors import BudgetError
from lma.signatures import LogStats, Section, SignatureConfig, SignatureTable, TableStats


def stats_of(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return LogStats.of(
        [
            TableStats.of_supports(f"t{i}", rng.zipf(1.5, n).clip(max=999))
            for i, n in enumerate(sizes)
        ]
    )


def allocation_of(plan, tables, config):
    sections = [
        Section(t.table, "learned", "context", config.num_codes, config.code_bits, t.num_signed)
        for t in plan.tables
        if t.num_signed
    ]
    size = sum(s.num_signed * s.row_bytes for s in sections)
    codes = torch.randint(0, 256, (size + 2,), dtype=torch.uint8)
    return LmaAllocation(tables, plan, SignatureTable(sections, codes), 0)


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    st.integers(3_000, 200_000),
    st.sampled_from([(2, 4, 8), (4, 6, 4), (2, 8, 8), (3, 5, 2)]),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_a_budget_is_kept_and_used(sizes, size, codes, share):
    num_codes, code_bits, block = codes
    config = SignatureConfig(
        kind="learned", num_codes=num_codes, code_bits=code_bits, min_support=1
    )
    stats, method = stats_of(sizes), Lma(block_size=block, signature_share=share, hashed_share=0.1)
    tables = [Table(f"t{i}", n + 1, 16) for i, n in enumerate(sizes)]
    try:
        plan = make_plan(Budget(size), stats, tables, method, config)
    except BudgetError:
        assume(False)
    allocation = allocation_of(plan, tables, config)
    spent = allocation.num_bytes().serving
    assert spent <= size
    coded = [t for t in plan.tables if t.private_dim < 16]
    for share_ in plan.tables:
        number = int(share_.table[1:])
        if sizes[number] <= 1 << code_bits:
            assert share_.private_dim == 16  # rows cost less than a codebook
    if coded and any(0 < t.num_private < sizes[int(t.table[1:])] for t in coded):
        assert size - spent <= 4 * (16 + 8 * len(coded))  # less than a block, and dimensions
    # Every place is a place.
    for number, table in enumerate(tables):
        places = allocation.places(table.name, torch.arange(table.num_embeddings))
        assert places.min() >= 0
        assert places.max() < allocation.num_blocks * allocation.block_size
        assert allocation.group(number) == (16, plan.tables[number].private_dim)


def test_by_hand():
    stats = LogStats.of(
        [
            TableStats.of_supports("small", [9] * 10),
            TableStats.of_supports("big", [8] * 100 + [3] * 100 + [1] * 100),
        ]
    )
    tables = [Table("small", 11, 8), Table("big", 301, 8)]
    config = SignatureConfig(kind="learned", num_codes=2, code_bits=4, min_support=2)
    method = Lma(block_size=4, signature_share=0.25, hashed_share=0.5)
    # settings 88 + 2 * 36 + 2 = 162; small's rows 11 * 8 * 4 = 352; codebook 16 * 8 * 4 = 512.
    # Left 2000: a quarter is 500 codes of one byte, so both supports >= 2 are signed: 200 bytes.
    # Left 1800: half is 900 bytes of blocks of 16 bytes: 56; 904 left: 226 floats less the shared
    # one, to the most frequent tokens.
    plan = make_plan(Budget(162 + 352 + 512 + 2000), stats, tables, method, config)
    assert plan.table("small").private_dim == 8
    assert plan.table("big").num_signed == 200
    assert plan.num_blocks == 56
    assert (plan.table("big").num_private, plan.table("big").private_dim) == (225, 1)


def test_code_bits_follow_the_budget():
    stats, method = stats_of([1000, 100]), Lma(block_size=8)
    tables = [Table("t0", 1001, 16), Table("t1", 101, 16)]
    config = SignatureConfig(kind="learned", num_codes=2)
    # Entries of 64 bytes: 256 or 128 of them for t0 alone, t1 has fewer tokens; 64 for both.
    for size, bits in (
        (4 * 256 * 64, 8),
        (4 * 256 * 64 - 1, 7),
        (32_768, 7),
        (32_767, 5),
        (100, 2),
    ):
        found = affordable_code_bits(Budget(size), stats, tables, method, config)
        assert found.code_bits == bits, size


def test_too_small_a_budget_says_what_does_not_fit():
    stats = stats_of([1000])
    config = SignatureConfig(kind="learned", num_codes=2, code_bits=8)
    with pytest.raises(BudgetError, match="do not hold 1 codebooks of 256 entries"):
        make_plan(Budget(5000), stats, [Table("t0", 1001, 16)], Lma(block_size=8), config)


def test_a_budget_alone_leaves_every_learned_code_a_chunk():
    """Larger blocks would leave codes unread that were paid for."""
    stats = stats_of([50_000, 50_000])
    signatures = SignatureConfig(kind="learned", similarity="context")
    for budget in ("400KB", "3MB", "6MB"):
        plan = lma.plan(budget, stats, signatures=signatures)
        for table in plan.tables:
            assert (16 - table.private_dim) // plan.block_size >= plan.num_codes


@pytest.mark.parametrize(
    ("name", "value"), [("private_support", 0), ("private_support", -1), ("most_private", -3)]
)
def test_private_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} must be >= .*found {value}"):
        Lma(**{name: value})


def test_a_private_part_is_never_more_than_half_a_vector():
    stats = stats_of([3000])
    method = Lma(block_size=4, most_private=40, private_share=0)
    plan = make_plan(
        Budget(1_000_000), stats, [Table("t0", 3001, 16)], method, SignatureConfig(kind="learned")
    )
    assert plan.tables[0].private_dim == 8
