"""CCE: vectors worked by hand, budgets, and what clustering keeps and changes."""

import itertools

import numpy as np
import pytest
import torch
from places_by_hand import key, to_range

from lma.allocation import Budget, Cce, Table
from lma.allocation.cce import CceAllocation, is_whole
from lma.errors import BudgetError, UnsupportedError
from lma.hashing import combine_int, stream_seed

TABLES = [Table("a", 60, 4), Table("b", 3, 4)]


def tiny(rows: int = 5, columns: int = 2, cluster_epochs: int = 9, seed: int = 7) -> CceAllocation:
    """Table a is clustered, table b whole."""
    allocation = CceAllocation(TABLES, rows, columns, cluster_epochs, seed)
    assert allocation.clustered == [0]
    return allocation


def vectors_of(allocation: CceAllocation, weight: torch.Tensor, table: str) -> torch.Tensor:
    number = allocation.number(table)
    ids = torch.arange(allocation.tables[number].num_embeddings)
    return allocation.vectors(weight, ids, torch.tensor([number]), allocation.group(number), False)


def hashed_row(token: int, stream: int, rows: int, seed: int) -> int:
    return to_range(combine_int(stream_seed(seed, stream), key("a", token)), rows)


@pytest.mark.parametrize("sparse", [False, True])
def test_vectors_are_sums_of_two_rows_column_by_column(sparse: bool) -> None:
    rows, columns, seed = 5, 2, 7
    allocation = tiny()
    assert (allocation.num_blocks, allocation.block_size) == (2 * rows * columns + 3 * columns, 2)
    weight = torch.randn(allocation.num_blocks, 2, dtype=torch.float64).requires_grad_()
    ids = torch.arange(60)
    found = allocation.vectors(weight, ids, torch.tensor([0]), (4,), sparse)
    cotangent = torch.randn(60, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(found, weight, cotangent)
    gradient = gradient.to_dense() if sparse else gradient
    expected = torch.zeros_like(weight)
    for token, column in itertools.product(range(60), range(columns)):
        # Streams 0 ... columns - 1 draw the first pointers, the next ones the helpers' rows.
        cluster = column * rows + hashed_row(token, column, rows, seed)
        helper = (columns + column) * rows + hashed_row(token, columns + column, rows, seed)
        part = slice(2 * column, 2 * column + 2)
        torch.testing.assert_close(found[token, part], weight[cluster] + weight[helper])
        expected[cluster] += cotangent[token, part]
        expected[helper] += cotangent[token, part]
    torch.testing.assert_close(gradient, expected)


def test_small_tables_are_whole() -> None:
    allocation = tiny()
    weight = torch.randn(allocation.num_blocks, 2)
    assert torch.equal(vectors_of(allocation, weight, "b"), weight[20:].view(3, 4))
    # 60 rows of 16 bytes against 2 * 27 rows and 75 bytes of pointers: 60 * 2 columns * 5 bits.
    assert not is_whole(60, 4, 2, 27)
    assert is_whole(60, 4, 2, 28)
    everything = CceAllocation(TABLES, 40, 2, 0, 0)
    weight = torch.randn(everything.num_blocks, 2)
    assert torch.equal(vectors_of(everything, weight, "a"), weight[:120].view(60, 4))
    assert everything.pointers.numel() == 2


def grouped(allocation: CceAllocation) -> torch.Tensor:
    """A memory whose vectors of table a lie near `rows` points far apart, as training would do.

    Cluster rows are far apart, helper rows small; a hash points to the cluster rows.
    """
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(allocation.num_blocks, allocation.block_size, generator=generator)
    weight[: allocation.columns * allocation.rows] *= 100
    return weight


def test_clustering_points_every_token_to_its_nearest_centroid() -> None:
    rows, columns = 5, 2
    allocation = tiny()
    weight = grouped(allocation)
    old = vectors_of(allocation, weight, "a").view(60, columns, 2)
    untouched = vectors_of(allocation, weight, "b")
    allocation.adaptation().after_epoch(1, [weight])
    centroids = weight[: columns * rows].view(columns, rows, 2)
    pointers = allocation.blocks(torch.arange(60), torch.tensor([0]), (4,))
    pointers = pointers - torch.arange(columns) * rows
    for column in range(columns):
        distances = torch.cdist(old[:, column], centroids[column])
        assert torch.equal(pointers[:, column], distances.argmin(1))
        # k-means' own condition: a centroid is the mean of the vectors nearest to it.
        for row in range(rows):
            members = old[pointers[:, column] == row, column]
            torch.testing.assert_close(centroids[column, row], members.mean(0))
    assert torch.equal(vectors_of(allocation, weight, "b"), untouched)


def test_clustering_leaves_vectors_near_what_they_were() -> None:
    allocation = tiny()
    weight = grouped(allocation)
    old = vectors_of(allocation, weight, "a")
    allocation.adaptation().after_epoch(1, [weight])
    new = vectors_of(allocation, weight, "a")
    centroid = weight[allocation.blocks(torch.arange(60), torch.tensor([0]), (4,))].flatten(1)
    # A helper row is the mean of its tokens' residuals: no other helpers are nearer on average.
    assert ((new - old) ** 2).sum() < ((centroid - old) ** 2).sum()
    # Groups are 100 apart, helpers within them 1: what is lost is of the helpers' size.
    assert ((new - old) ** 2).mean() < 2
    assert old.var() > 1000


def test_the_optimizer_forgets_the_rows_that_were_replaced() -> None:
    allocation = tiny()
    moments = [torch.ones(allocation.num_blocks, 2) for _ in range(2)]
    allocation.adaptation().after_epoch(1, [grouped(allocation), *moments])
    for moment in moments:
        assert not moment[:20].any()
        assert (moment[20:] == 1).all()


def test_helper_rows_are_mean_residuals_under_new_hash_functions() -> None:
    rows, columns = 5, 2
    allocation = tiny()
    weight = grouped(allocation)
    old, seeds = vectors_of(allocation, weight, "a"), allocation.seeds.clone()
    allocation.adaptation().after_epoch(1, [weight])
    assert not (allocation.seeds == seeds).any()
    ids, numbers = torch.arange(60), torch.tensor([0])
    residual = old.view(60, columns, 2) - weight[allocation.blocks(ids, numbers, (4,))]
    helpers = allocation.helper_blocks(ids, numbers)
    for block in range(columns * rows, 2 * columns * rows):
        members = residual[helpers == block]
        expected = members.mean(0) if len(members) else torch.zeros(2)
        torch.testing.assert_close(weight[block], expected, atol=1e-4, rtol=1e-5)


def test_the_same_state_clusters_to_the_same_bits() -> None:
    results = []
    for _ in range(2):
        allocation = tiny()
        weight = grouped(allocation)
        clustering = allocation.adaptation()
        for epoch in (1, 2):
            clustering.after_epoch(epoch, [weight])
        results.append((weight, allocation.pointers, allocation.seeds))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_it_clusters_after_the_first_epochs_only() -> None:
    allocation = tiny(cluster_epochs=2)
    weight = grouped(allocation)
    changed = []
    for epoch in (1, 2, 3):
        before = weight.clone()
        allocation.adaptation().after_epoch(epoch, [weight])
        changed.append(not torch.equal(weight, before))
    assert changed == [True, True, False]


def test_samples_and_batches_of_a_large_table(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3 samples per centroid and 8 tokens at a time: every token is pointed all the same.
    monkeypatch.setattr("lma.allocation.cce_clustering.SAMPLES_PER_ROW", 3)
    monkeypatch.setattr("lma.allocation.cce_clustering.DISTANCES_AT_ONCE", 79)
    allocation = tiny()
    weight = grouped(allocation)
    old = vectors_of(allocation, weight, "a").view(60, 2, 2)
    allocation.adaptation().after_epoch(1, [weight])
    pointers = allocation.blocks(torch.arange(60), torch.tensor([0]), (4,)) - torch.tensor([0, 5])
    for column in range(2):
        distances = torch.cdist(old[:, column], weight[:20].view(4, 5, 2)[column])
        assert torch.equal(pointers[:, column], distances.argmin(1))


def test_initial_vectors_have_the_asked_deviation() -> None:
    tables = [Table("a", 30_000, 4), Table("b", 500, 4)]
    allocation = CceAllocation(tables, 2000, 2, 0, 0)
    assert allocation.clustered == [0]
    weight = torch.empty(allocation.num_blocks, 2)
    torch.manual_seed(0)
    allocation.reset_weight(weight, 0.1)
    # 8000 floats behind table a, 2000 of table b: five standard errors.
    assert vectors_of(allocation, weight, "a").std() == pytest.approx(0.1, rel=5 / 16_000**0.5)
    assert vectors_of(allocation, weight, "b").std() == pytest.approx(0.1, rel=5 / 4000**0.5)


def test_pointers_leave_half_of_the_budget_to_rows() -> None:
    tables = [Table("a", 10_000, 16)]
    # 4 bytes per token: four pointers of 7 bits would take most of it.
    allocation = Cce(columns=4).allocate(tables, Budget(41_000))
    assert allocation.columns == 2
    assert allocation.num_bytes().weights >= 20_500
    assert allocation.num_bytes().serving <= 41_000
    generous = Cce(columns=4).allocate(tables, Budget(200_000))
    assert generous.columns == 4
    # One pointer of five bits.
    poor = Cce(columns=4).allocate(tables, Budget(10_000))
    assert poor.columns == 1
    assert 16 < poor.rows <= 32
    # Where weights alone count, pointers are free.
    free = Cce(columns=4).allocate(tables, Budget(40_000, counts="weights"))
    assert free.columns == 4
    assert 39_000 <= free.num_bytes().weights <= 40_000


def test_one_number_of_rows_for_all_clustered_tables() -> None:
    tables = [Table("a", 5000, 8), Table("b", 3000, 8), Table("c", 10, 8)]
    allocation = Cce().allocate(tables, Budget(30_000))
    assert allocation.clustered == [0, 1]
    expected = 2 * (2 * allocation.rows) * 8 + 10 * 8
    assert allocation.num_blocks * allocation.block_size == expected


def test_what_it_refuses() -> None:
    with pytest.raises(BudgetError, match="cce: 100 bytes hold no two rows of 8 floats per table"):
        Cce().allocate([Table("a", 1000, 8)], Budget(100))
    with pytest.raises(ValueError, match="cce needs a budget"):
        Cce().allocate([Table("a", 1000, 8)], None)
    with pytest.raises(ValueError, match=r"Cce.columns must divide embedding_dim 8, found 3"):
        Cce(columns=3).allocate([Table("a", 1000, 8)], Budget(1000))
    with pytest.raises(ValueError, match=r"Cce.columns must be at least 1, found 0"):
        Cce(columns=0)
    with pytest.raises(UnsupportedError, match="needs num_embeddings"):
        Cce().allocate([Table("a", None, 8)], Budget(1000))


def test_pointers_of_many_rows_take_their_bits() -> None:
    # 300 rows: 9 bits, in 3 columns, for each of 2000 tokens; and two spare bytes.
    allocation = CceAllocation([Table("a", 2000, 6)], 300, 3, 0, 0)
    assert allocation.pointers.numel() == 2000 * 27 / 8 + 2
    chosen = np.random.default_rng(0).integers(0, 300, (2000, 3))
    allocation.point(0, torch.arange(2000), chosen)
    found = allocation.blocks(torch.arange(2000), torch.tensor([0]), (6,))
    assert np.array_equal(found.numpy() - np.arange(3) * 300, chosen)
