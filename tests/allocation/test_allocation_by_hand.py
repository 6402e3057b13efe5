"""Every allocation against a plain loop over tokens: places, vectors, gradients."""

from collections.abc import Callable

import places_by_hand as by_hand
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lma.allocation import (
    Budget,
    Cafe,
    FrequencyCutoff,
    Full,
    Hashed,
    HashingTrick,
    Lma,
    LmaAllocation,
    LowDimension,
    Plan,
    QuotientRemainder,
    Robe,
    Table,
    TablePlan,
)
from lma.allocation.base import Allocation
from lma.allocation.frequency_cutoff import FrequencyCutoffAllocation
from lma.allocation.hashed import HashedAllocation
from lma.allocation.hashing_trick import HashingTrickAllocation, share_rows
from lma.allocation.quotient_remainder import QuotientRemainderAllocation
from lma.allocation.robe import RobeAllocation
from lma.hashing import table_salt
from lma.signatures import LogStats, SignatureTable, TableStats
from signature_cases import random_codes, signatures_of

ANY_ID = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**32, 2**31 - 1]),
)
SEEDS = st.integers(-(2**63), 2**63 - 1)
NO_SIGNATURES = SignatureTable([], torch.zeros(2, dtype=torch.uint8))


def places(allocation: Allocation, table: str, ids: list[int]) -> list[list[int]]:
    found = allocation.places(table, torch.tensor(ids, dtype=torch.int64))
    assert found.dtype == torch.int64
    size = allocation.num_blocks * allocation.block_size
    assert not len(ids) or (int(found.min()) >= 0 and int(found.max()) < size)
    return found.tolist()


# --- places ---------------------------------------------------------------------------------


@given(
    st.lists(ANY_ID, max_size=8), st.integers(1, 2**31 - 1), st.sampled_from([1, 2, 4, 12]), SEEDS
)
def test_hashed(ids: list[int], num_blocks: int, block: int, seed: int) -> None:
    tables = [Table("a", None, 12), Table("b", None, 24)]
    allocation = HashedAllocation(tables, num_blocks, block, seed)
    for table in tables:
        dim = table.embedding_dim
        expected = [by_hand.hashed(table.name, i, dim, block, num_blocks, seed) for i in ids]
        assert places(allocation, table.name, ids) == expected


@given(st.lists(ANY_ID, max_size=8), st.integers(1, 5000), st.sampled_from([1, 3, 12]), SEEDS)
def test_robe_runs_around_the_end(ids: list[int], size: int, run: int, seed: int) -> None:
    allocation = RobeAllocation([Table("a", None, 12)], size, run, seed)
    expected = [by_hand.robe("a", i, 12, run, size, seed) for i in ids]
    assert places(allocation, "a", ids) == expected


@given(st.lists(ANY_ID, max_size=8), st.integers(1, 2**31 - 1), SEEDS)
def test_hashing_trick_with_common_rows(ids: list[int], rows: int, seed: int) -> None:
    allocation = HashingTrickAllocation([Table("a", None, 4), Table("b", None, 4)], [rows], seed)
    for table in ("a", "b"):
        expected = [by_hand.hashing_trick(table, i, 4, rows, 0, seed) for i in ids]
        assert places(allocation, table, ids) == expected


@given(st.integers(1, 40), st.integers(1, 40), SEEDS)
def test_hashing_trick_with_own_rows(rows_a: int, rows_b: int, seed: int) -> None:
    tables = [Table("a", 40, 3), Table("b", 40, 3)]
    allocation = HashingTrickAllocation(tables, [rows_a, rows_b], seed)
    ids = list(range(40))
    for table, rows, first in (("a", rows_a, 0), ("b", rows_b, rows_a)):
        if rows == 40:
            expected = [by_hand.own_row(i, 3, first) for i in ids]
        else:
            expected = [by_hand.hashing_trick(table, i, 3, rows, first, seed) for i in ids]
        assert places(allocation, table, ids) == expected


def test_common_rows_stay_hashed_where_a_table_is_as_large() -> None:
    tables = [Table("a", 40, 3), Table("b", 7, 3)]
    allocation = HashingTrickAllocation(tables, [40], 5)
    expected = [by_hand.hashing_trick("a", i, 3, 40, 0, 5) for i in range(40)]
    assert places(allocation, "a", list(range(40))) == expected


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.data())
def test_frequency_cutoff(sizes: list[int], data: st.DataObject) -> None:
    tables = [Table(f"t{i}", size, 5) for i, size in enumerate(sizes)]
    kept = [data.draw(st.integers(0, size)) for size in sizes]
    allocation = FrequencyCutoffAllocation(tables, kept)
    first = 0
    for table, count in zip(tables, kept, strict=True):
        ids = list(range(table.num_embeddings or 0))
        expected = [by_hand.own_row(min(i, count), 5, first) for i in ids]
        assert places(allocation, table.name, ids) == expected
        first += count + 1
    assert allocation.num_blocks == first


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([2, 4, 6])), min_size=1, max_size=4))
def test_full_rows_follow_one_another(shapes: list[tuple[int, int]]) -> None:
    tables = [Table(f"t{i}", size, dim) for i, (size, dim) in enumerate(shapes)]
    allocation = Full().allocate(tables)
    taken = []
    for table in tables:
        for row in places(allocation, table.name, list(range(table.num_embeddings or 0))):
            assert len(row) == table.embedding_dim
            taken += row
    assert taken == list(range(sum(size * dim for size, dim in shapes)))


def test_low_dimension_is_full_of_fewer_floats() -> None:
    tables = [Table("a", 10, 16), Table("b", 5, 2)]
    allocation = LowDimension(4).allocate(tables, None)
    assert [t.embedding_dim for t in allocation.tables] == [4, 2]
    assert allocation.num_blocks * allocation.block_size == 10 * 4 + 5 * 2
    # 15 tokens and 32 bytes of settings: the largest d with 15 * 4 d + 32 within the budget, or
    # missing it by less than 1 %.
    for budget, dim in ((15 * 4 * 3 + 32, 3), (15 * 4 * 3 + 29, 2), (15 * 4 + 32, 1)):
        tables = [Table("a", 10, 16), Table("b", 5, 16)]
        found = LowDimension().allocate(tables, Budget(budget))
        assert {t.embedding_dim for t in found.tables} == {dim}


# --- LMA ------------------------------------------------------------------------------------


def lma_by_hand(
    allocation: LmaAllocation, codes: dict, kinds: dict, table: str, token: int, across: bool
) -> list[int]:
    """All places of one token, straight from the plan: [shared | codebooks | private]."""
    plan, size = allocation.plan, allocation.plan.block_size
    draws = allocation.draws.tolist()
    own = plan.num_blocks - plan.hashed_blocks
    chunks, codebook, private_base = {}, {}, {}
    end = plan.num_blocks * size
    for t in allocation.tables:
        chunks[t.name] = -(-(t.embedding_dim - plan.table(t.name).private_dim) // size)
        if kinds.get(t.name) == "learned" and t.name in codes:
            codebook[t.name] = end
            end += chunks[t.name] * size << code_bits_of(allocation, t.name)
    for t in allocation.tables:
        share = plan.table(t.name)
        private_base[t.name] = end
        end += (share.num_private + 1) * share.private_dim if share.private_dim else 0
    assert end == allocation.num_blocks * allocation.block_size

    dim = next(t.embedding_dim for t in allocation.tables if t.name == table)
    share = plan.table(table)
    slot = token if 0 <= token < share.num_private else share.num_private
    out = [private_base[table] + slot * share.private_dim + i for i in range(share.private_dim)]
    signed = table in codes and 0 <= token < len(codes[table])
    semantic = []
    for j in range(chunks[table]):
        if signed and kinds.get(table) == "learned":
            number = j * codes[table].shape[1] // chunks[table]
            block = (j << code_bits_of(allocation, table)) + int(codes[table][token][number])
            start = codebook[table] + block * size
        elif signed:
            salt = 0 if across else table_salt(table)
            row = [int(c) for c in codes[table][token]]
            start = size * by_hand.random_chunk(row, draws[j], j, salt, own, allocation.seed)
        else:
            blocks = plan.hashed_blocks or plan.num_blocks
            first = own * size if plan.hashed_blocks else 0
            keys = by_hand.key(table, token)
            state = by_hand.combine_int(by_hand.stream_seed(allocation.seed, j), keys)
            start = first + size * by_hand.to_range(state, blocks)
        semantic += [start + i for i in range(size)]
    return out + semantic[: dim - share.private_dim]


def code_bits_of(allocation: LmaAllocation, table: str) -> int:
    return next(s.code_bits for s in allocation.sections if s.table == table)


@pytest.mark.parametrize("similarity", ["rows", "context"])
@pytest.mark.parametrize("code_bits", [1, 5, 8, 11, 16])
@pytest.mark.parametrize("hashed_blocks", [0, 7])
def test_lma_of_random_codes(similarity: str, code_bits: int, hashed_blocks: int) -> None:
    tables = [Table("a", None, 6), Table("b", 30, 8), Table("c", 20, 6), Table("d", 9, 4)]
    codes = random_codes({"a": 10, "b": 20}, 5, code_bits)
    signatures = signatures_of(codes, code_bits=code_bits, similarity=similarity)
    shares = (
        TablePlan("a", 10),
        TablePlan("b", 20, num_private=3, private_dim=3),
        TablePlan("c"),
        TablePlan("d", 0, num_private=9, private_dim=4),
    )
    plan = Plan(shares, 40, hashed_blocks, 2, 3, 5, code_bits)
    allocation = LmaAllocation(tables, plan, signatures, seed=11)
    across = similarity == "rows"
    for table, ids in {
        "a": [0, 9, 10, -1, 2**63 - 1, -(2**63)],
        "b": range(30),
        "c": range(20),
        "d": range(9),
    }.items():
        expected = [lma_by_hand(allocation, codes, {}, table, i, across) for i in ids]
        assert places(allocation, table, list(ids)) == expected


@pytest.mark.parametrize("block_size", [1, 2, 4])
def test_lma_of_learned_and_mixed_codes(block_size: int) -> None:
    tables = [Table("a", 30, 8), Table("b", 30, 8), Table("c", 30, 6)]
    codes = {**random_codes({"a": 20, "c": 30}, 4, 8), **random_codes({"b": 25}, 4, 8, seed=1)}
    kinds = {"a": "learned", "b": "random", "c": "learned"}
    signatures = signatures_of(codes, code_bits=8, kinds=kinds)
    shares = (TablePlan("a", 20), TablePlan("b", 25), TablePlan("c", 30, 4, 2))
    plan = Plan(shares, 50, 10, block_size, 2, 4, 8)
    allocation = LmaAllocation(tables, plan, signatures, seed=3)
    for table in ("a", "b", "c"):
        expected = [lma_by_hand(allocation, codes, kinds, table, i, False) for i in range(30)]
        assert places(allocation, table, list(range(30))) == expected


def test_lma_without_any_signature_is_plain_hashing() -> None:
    tables = [Table("a", None, 8)]
    plan = Plan((TablePlan("a"),), 50, 0, 2, 2, 4, 8)
    allocation = LmaAllocation(tables, plan, NO_SIGNATURES, seed=3)
    ids = [0, 5, -7, 2**62]
    expected = [by_hand.hashed("a", i, 8, 2, 50, 3) for i in ids]
    assert places(allocation, "a", ids) == expected


# --- vectors and gradients ------------------------------------------------------------------


def lma_case() -> LmaAllocation:
    tables = [Table("a", 60, 12), Table("b", 60, 8), Table("c", 60, 8)]
    codes = random_codes({"a": 40, "b": 40}, 6, 8)
    shares = (TablePlan("a", 40), TablePlan("b", 40, 5, 2), TablePlan("c", 0, 60, 8))
    plan = Plan(shares, 30, 6, 2, 2, 6, 8)
    return LmaAllocation(tables, plan, signatures_of(codes, code_bits=8), 0)


def lma_blocks() -> LmaAllocation:
    tables = [Table("a", 60, 12), Table("b", 60, 8), Table("c", 60, 8)]
    codes = random_codes({"a": 40, "b": 40}, 6, 8)
    shares = (TablePlan("a", 40), TablePlan("b", 40), TablePlan("c", 0, 60, 8))
    plan = Plan(shares, 30, 6, 4, 2, 6, 8)
    return LmaAllocation(tables, plan, signatures_of(codes, code_bits=8), 0)


def cafe_case() -> Allocation:
    """Tokens of both tables own rows."""
    allocation = Cafe().allocate(SAME, Budget(1200))
    allocation.settle(torch.tensor([2, 59, 60, 100]), [])
    return allocation


SAME = [Table("a", 60, 8), Table("b", 60, 8)]
DIFFERENT = [Table("a", 60, 12), Table("b", 60, 8)]
CASES: dict[str, Callable[[], Allocation]] = {
    "full": lambda: Full().allocate(DIFFERENT),
    "full of one dimension": lambda: Full().allocate(SAME),
    "full of single floats": lambda: Full().allocate([Table("a", 60, 1)]),
    "hashed floats": lambda: Hashed(1).allocate(DIFFERENT, Budget(600)),
    "hashed blocks": lambda: Hashed(4).allocate(DIFFERENT, Budget(900)),
    "robe": lambda: Robe(4).allocate(DIFFERENT, Budget(300)),
    "robe smaller than a run": lambda: Robe(4).allocate(DIFFERENT, Budget(56 + 12)),
    "hashing trick": lambda: HashingTrick().allocate(SAME, Budget(1000)),
    "hashing trick in common": lambda: HashingTrick(per_table=False).allocate(SAME, Budget(1000)),
    "cafe": cafe_case,
    "cut-off": lambda: FrequencyCutoffAllocation(SAME, [10, 0]),
    "lma": lma_case,
    "lma blocks": lma_blocks,
}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_vectors_and_gradients_are_those_of_a_loop(case: str, sparse: bool) -> None:
    allocation = CASES[case]()
    generator = torch.Generator().manual_seed(1)
    shape = allocation.num_blocks, allocation.block_size
    weight = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    for table in allocation.tables:
        number = allocation.number(table.name)
        ids = torch.randint(0, table.num_embeddings or 1, (3, 7), generator=generator)
        group = allocation.group(number)
        found = allocation.vectors(weight, ids, torch.tensor([number]), group, sparse)
        cotangent = torch.randn(found.shape, generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(found, weight, cotangent)

        flat = weight.detach().flatten().tolist()
        expected = torch.zeros(weight.numel(), dtype=torch.float64)
        for i, row in enumerate(allocation.places(table.name, ids.flatten()).tolist()):
            assert found.flatten(0, 1)[i].tolist() == [flat[place] for place in row]
            for d, place in enumerate(row):
                expected[place] += cotangent.flatten(0, 1)[i, d]
        assert gradient.is_sparse == sparse
        dense = gradient.to_dense() if sparse else gradient
        torch.testing.assert_close(dense.flatten(), expected)


@pytest.mark.parametrize("case", CASES)
def test_no_ids_give_no_vectors(case: str) -> None:
    allocation = CASES[case]()
    weight = torch.zeros(allocation.num_blocks, allocation.block_size, requires_grad=True)
    for table in allocation.tables:
        group = allocation.group(allocation.number(table.name))
        ids = torch.empty(0, 3, dtype=torch.int64)
        found = allocation.vectors(weight, ids, torch.tensor([0]), group, False)
        assert found.shape == (0, 3, table.embedding_dim)
        found.sum().backward()


@pytest.mark.parametrize("sparse", [False, True])
def test_quotient_remainder_is_a_product_of_rows(sparse: bool) -> None:
    # Shi et al. 2020, section 3: element-wise product of two rows; table b is kept whole.
    tables = [Table("a", 20, 3), Table("b", 4, 3)]
    allocation = QuotientRemainderAllocation(tables, [6, 4])
    assert allocation.num_blocks == 6 + 4 + 4
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(14, 3, generator=generator, dtype=torch.float64).requires_grad_()
    ids = torch.arange(20)
    found = allocation.vectors(weight, ids, torch.zeros(1, dtype=torch.int64), (3,), sparse)
    rows = weight.detach()
    for i in range(20):
        assert torch.equal(found[i], rows[i % 6] * rows[6 + i // 6])
    cotangent = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(found, weight, cotangent)
    expected = torch.zeros(14, 3, dtype=torch.float64)
    for i in range(20):
        expected[i % 6] += cotangent[i] * rows[6 + i // 6]
        expected[6 + i // 6] += cotangent[i] * rows[i % 6]
    torch.testing.assert_close(gradient.to_dense() if sparse else gradient, expected)

    found = allocation.vectors(
        weight, torch.arange(4), torch.ones(1, dtype=torch.int64), (3,), True
    )
    assert torch.equal(found, rows[10:])
    assert not allocation.whole_rows


def test_quotient_remainder_tells_all_tokens_apart() -> None:
    tables = [Table("a", 1000, 4), Table("b", 7, 4), Table("c", 0, 4)]
    allocation = QuotientRemainder().allocate(tables, Budget(6000))
    weight = torch.empty(allocation.num_blocks, 4)
    torch.manual_seed(0)
    allocation.reset_weight(weight, 0.1)
    for number, size in ((0, 1000), (1, 7)):
        vectors = allocation.vectors(
            weight, torch.arange(size), torch.tensor([number]), (4,), False
        )
        assert len(torch.unique(vectors, dim=0)) == size
        # Products of N(0, s^2) and N(1, s^2): standard deviation s sqrt(1 + s^2).
        assert vectors.std() == pytest.approx(0.1, rel=0.15 if size == 1000 else 0.5)


def test_initial_weights_are_normal() -> None:
    allocation = Hashed().allocate([Table("a", None, 8)], Budget(400_000))
    weight = torch.empty(allocation.num_blocks, 1)
    torch.manual_seed(0)
    allocation.reset_weight(weight, 0.5)
    # 100 000 draws: five standard errors of the mean and of the standard deviation.
    assert abs(float(weight.mean())) < 5 * 0.5 / len(weight) ** 0.5
    assert float(weight.std()) == pytest.approx(0.5, abs=5 * 0.5 / (2 * len(weight)) ** 0.5)


# --- shares of rows -------------------------------------------------------------------------


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8), st.integers(0, 3000))
def test_rows_are_shared_out(sizes: list[int], total: int) -> None:
    rows = share_rows(sizes, total)
    assert all(1 <= count <= max(1, size) for count, size in zip(rows, sizes, strict=True))
    assert sum(rows) <= max(total, len(sizes))
    if total >= len(sizes) and all(sizes):
        # Every row is used, unless all tables are whole.
        assert sum(rows) == min(total, sum(sizes))


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=25), min_size=1, max_size=4), st.integers(0, 60)
)
def test_cutoff_keeps_the_most_frequent(supports: list[list[int]], private: int) -> None:
    tables = [Table(f"t{i}", len(s), 4) for i, s in enumerate(supports)]
    # Gaps between supports: a threshold is not the next number down.
    stats = LogStats.of(
        [TableStats.of_supports(f"t{i}", [7 * x for x in s]) for i, s in enumerate(supports)]
    )
    if not any(supports):
        return
    budget = Budget(8 * (5 + len(tables)) + 16 * (private + len(tables)))
    kept = FrequencyCutoff().allocate(tables, budget, stats=stats).kept.tolist()
    assert sum(kept) == min(private, sum(map(len, supports)))
    ranked = [sorted(s, reverse=True) for s in supports]
    inside = [x for s, count in zip(ranked, kept, strict=True) for x in s[:count]]
    outside = [x for s, count in zip(ranked, kept, strict=True) for x in s[count:]]
    assert not inside or not outside or min(inside) >= max(outside)


def test_lma_config_of_the_allocation_is_checked() -> None:
    for field, value, message in [
        ("block_size", 0, "Lma.block_size must be at least 1, found 0"),
        ("power", 0, "Lma.power must be at least 1, found 0"),
        ("signature_share", 1.0, r"Lma.signature_share must be in \[0, 1\), found 1.0"),
        ("private_share", -0.1, r"Lma.private_share must be in \[0, 1\), found -0.1"),
        ("hashed_share", 2, r"Lma.hashed_share must be in \[0, 1\), found 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            Lma(**{field: value})
