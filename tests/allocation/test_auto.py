"""The default method: what it chooses, that it keeps its budget, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from lma.allocation import Auto, Budget, FrequencyCutoff, Lma, Table
from lma.allocation.auto import coverage
from lma.allocation.planning import make_plan
from lma.errors import BudgetError
from lma.signatures import LogStats, SignatureConfig, TableStats


def stats_of(**supports: object) -> LogStats:
    return LogStats.of([TableStats.of_supports(n, s) for n, s in supports.items()])


def tables_of(stats: LogStats, unbounded: bool = False) -> list[Table]:
    return [Table(n, None if unbounded else t.num_tokens + 1, 16) for n, t in stats.tables.items()]


def test_coverage_by_hand() -> None:
    """Supports 9, 5, 5, 1 and 4, 2: 19 + 6 occurrences... of 26."""
    tables = [
        TableStats.of_supports("a", [9, 5, 5, 1]),
        TableStats.of_supports("b", [4, 2]),
    ]
    assert coverage(tables, [0, 0]) == 0
    assert coverage(tables, [2, 1]) == (9 + 5 + 4) / 26
    assert coverage(tables, [3, 2]) == (9 + 5 + 5 + 4 + 2) / 26
    assert coverage(tables, [4, 2]) == 1


def test_many_rows_per_token_get_rows_of_their_own_in_four_bits() -> None:
    stats = stats_of(user=np.full(1000, 100), item=np.full(500, 200))
    choice = Auto().choose(tables_of(stats), Budget.of("16x", None, 1500), stats)
    assert choice.signatures is None
    assert choice.budget.precision == "int4"
    # 4 bytes a token are 8 floats of 4 bits, less the scales: some tokens would go without.
    assert choice.method == FrequencyCutoff(6)
    assert {table.embedding_dim for table in choice.tables} == {6}


def test_a_budget_for_every_token_at_full_width_buys_finer_floats() -> None:
    """One byte less than 8-bit rows for all tokens take: one goes without, and all get 4 bits."""
    stats = stats_of(user=np.full(1000, 100), item=np.full(500, 200))
    tables = tables_of(stats)
    least = next(
        size
        for size in range(1500 * 16, 1500 * 24)
        if Auto().choose(tables, Budget(size), stats).budget.precision == "int8"
    )
    choice = Auto().choose(tables, Budget(least), stats)
    assert choice.method == FrequencyCutoff(16)
    layout = choice.method.allocate(choice.tables, choice.budget, stats=stats)
    assert list(layout.kept) == [1000, 500]
    before = Auto().choose(tables, Budget(least - 1), stats)
    assert (before.method, before.budget.precision) == (FrequencyCutoff(16), "int4")
    rows = FrequencyCutoff(16).allocate(tables, Budget(least - 1, precision="int8"), stats=stats)
    assert sum(rows.kept) == 1499


@pytest.mark.parametrize(("each", "dim"), [(9.0, 16), (7.0, 12), (5.0, 8), (3.7, 6), (2.6, 4)])
def test_rows_take_the_bytes_that_there_are_for_each_token(each: float, dim: int) -> None:
    """A row of d 4-bit floats takes d / 2 bytes and its share of a scale."""
    stats = stats_of(user=np.full(1000, 100), item=np.full(500, 200))
    choice = Auto().choose(tables_of(stats), Budget(round(1500 * each)), stats)
    assert choice.budget.precision == "int4"
    assert choice.tables[0].embedding_dim == dim


def test_with_sampled_negatives_tokens_get_one_float_of_their_own_at_most() -> None:
    supports = np.concatenate([np.full(1000, 50), np.full(9000, 4)])
    stats = stats_of(user=supports, item=supports, site=supports)
    tables = tables_of(stats)
    choice = Auto(similarity="positive_context").choose(tables, Budget(3_000_000), stats)
    assert isinstance(choice.method, Lma)
    plan = make_plan(
        choice.budget, stats, choice.tables, choice.method, choice.signatures or SignatureConfig()
    )
    assert [(t.num_private, t.private_dim) for t in plan.tables] == [(10_000, 1)] * 3


def test_tokens_that_hardly_occur_do_not_narrow_the_rows() -> None:
    stats = stats_of(user=np.concatenate([np.full(900, 200), np.ones(100)]))
    choice = Auto().choose(tables_of(stats), Budget.of("16x", None, 1000), stats)
    assert choice.method == FrequencyCutoff(8)


@pytest.mark.parametrize(
    ("compression", "codes"), [("16x", (4, 8)), ("32x", (2, 8)), ("64x", (1, 8))]
)
def test_few_rows_per_token_get_codes(compression: str, codes: tuple[int, int]) -> None:
    stats = stats_of(user=np.arange(60_000) % 16 + 2, item=np.arange(90_000) % 12 + 1)
    choice = Auto().choose(tables_of(stats), Budget.of(compression, None, 150_000), stats)
    assert isinstance(choice.method, Lma)
    assert choice.signatures is not None
    assert (choice.signatures.num_codes, choice.signatures.code_bits) == codes
    assert choice.signatures.similarity == "positive_context"
    assert choice.budget.precision == "int8"
    assert choice.method.block_size * choice.signatures.num_codes == 32


@pytest.mark.parametrize(("rows", "bits"), [(600_000, 8), (140_000, 6), (70_000, 5), (900, 4)])
def test_entries_of_codebooks_of_plain_contexts_get_rows_to_learn_from(
    rows: int, bits: int
) -> None:
    """2000 rows each: 2^8 entries take 512 thousand, 2^6 128, 2^5 64; 2^4 is the coarsest."""
    supports = np.full(rows // 6, 6)
    stats = stats_of(user=supports, item=supports, site=supports)
    tables = tables_of(stats)
    choice = Auto(similarity="context").choose(tables, Budget(rows * 20), stats)
    assert choice.signatures is not None
    assert (choice.signatures.num_codes, choice.signatures.code_bits) == (1, bits)
    assert choice.signatures.dim == 64


def test_with_plain_contexts_rare_tokens_get_no_floats_of_their_own() -> None:
    supports = np.concatenate([np.full(1000, 50), np.full(9000, 4)])
    stats = stats_of(user=supports, item=supports, site=supports)
    tables = tables_of(stats)
    choice = Auto(similarity="context").choose(tables, Budget(30_000_000), stats)
    assert isinstance(choice.method, Lma)
    plan = make_plan(
        choice.budget, stats, choice.tables, choice.method, choice.signatures or SignatureConfig()
    )
    # A budget of any size: eight floats for the tokens seen five times, one shared row of 32 for
    # tokens without a code, and nothing more.
    assert [(t.num_private, t.private_dim) for t in plan.tables] == [(1000, 8)] * 3
    assert plan.num_blocks == 1


def test_an_unknown_similarity_is_named() -> None:
    stats = stats_of(user=np.full(6000, 9))
    with pytest.raises(ValueError, match=r"similarity must be one of .* found .rows."):
        Auto(similarity="rows").choose(tables_of(stats), Budget(90_000), stats)


def test_hashed_ids_get_codes_since_none_is_known_to_be_frequent() -> None:
    stats = stats_of(user=np.full(5000, 100))
    choice = Auto().choose(tables_of(stats, unbounded=True), Budget(40_000), stats)
    assert isinstance(choice.method, Lma)


def test_a_small_budget_signs_more_tokens_by_narrower_codebooks() -> None:
    """Real labels, 20 tables of 6,000 tokens: codebooks of 32 floats would take most of 14 kB."""
    stats = stats_of(**{f"C{i}": np.arange(6000) % 60 + 1 for i in range(20)})
    wide, narrow = (
        Auto(similarity="context").choose(tables_of(stats), Budget(size), stats)
        for size in (400_000, 14_000)
    )
    assert wide.tables[0].embedding_dim == 32
    assert narrow.tables[0].embedding_dim == 8
    assert narrow.method.block_size == 8  # type: ignore[union-attr]


def test_a_budget_that_holds_no_codebook_gets_rows() -> None:
    """20 codebooks of 16 entries of 8 floats take 2,560 bytes; 20 rows of two 4-bit floats 20."""
    stats = stats_of(**{f"C{i}": np.arange(6000) % 60 + 1 for i in range(20)})
    method = Auto(similarity="context")
    assert method.choose(tables_of(stats), Budget(2_000), stats).method == FrequencyCutoff(2)
    with pytest.raises(BudgetError):
        method.choose(tables_of(stats, unbounded=True), Budget(2_000), stats)


def test_too_small_a_budget_says_so() -> None:
    stats = stats_of(user=np.full(6000, 9))
    with pytest.raises(BudgetError, match=r"50 bytes .* 1 tables, which take (\d+)") as error:
        Auto().choose(tables_of(stats), Budget(50), stats)
    least = int(str(error.value).split("take ")[1].split(";")[0])
    assert Auto().choose(tables_of(stats), Budget(least), stats).method == FrequencyCutoff(2)
    with pytest.raises(BudgetError):
        Auto().choose(tables_of(stats), Budget(least - 1), stats)


def test_rows_go_down_to_one_float_where_that_is_whole_bytes() -> None:
    stats = stats_of(user=np.full(1000, 100))
    budget = Budget.of("64x", None, 1000)
    assert budget is not None
    dims = {
        bits: [c.tables[0].embedding_dim for c in Auto().rows(tables_of(stats), budget, bits)]
        for bits in ("int8", "int4")
    }
    assert dims == {"int8": [16, 8, 4, 2, 1], "int4": [16, 8, 4, 2]}
