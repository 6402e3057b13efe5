"""CAFE: places worked by hand, and rows that follow the gradients."""

import pytest
import torch
from places_by_hand import hashing_trick, own_row

from lma.allocation import Budget, Cafe, Table
from lma.allocation.cafe import CafeAllocation
from lma.errors import BudgetError, UnsupportedError

TABLES = [Table("a", 40, 2), Table("b", 3, 2), Table("c", 30, 2)]
OWN, ROWS = 4, [5, 3, 2]  # table b is whole
TRAINING = {"threshold": 6.0, "decay": 0.5, "buckets_per_row": 1}


def tiny(own: int = OWN, **training: float) -> CafeAllocation:
    return CafeAllocation(TABLES, own, ROWS, seed=9, **{**TRAINING, **training})


def test_rows_of_hot_and_cold_tokens() -> None:
    allocation = tiny()
    weight = torch.zeros(allocation.num_blocks, 2)
    # Tokens are numbered through: 3 of table a, 43 + 7 of table c.
    allocation.settle(torch.tensor([3, 50]), [weight])
    first = OWN * 2
    for token, place in ((3, [0, 1]), (4, None)):
        expected = place or [first + p for p in hashing_trick("a", token, 2, 5, 0, 9)]
        assert allocation.places("a", torch.tensor([token])).tolist() == [expected]
    for token, place in ((7, [2, 3]), (3, None)):
        expected = place or [first + p for p in hashing_trick("c", token, 2, 2, 8, 9)]
        assert allocation.places("c", torch.tensor([token])).tolist() == [expected]
    for token in range(3):
        expected = [first + p for p in own_row(token, 2, 5)]
        assert allocation.places("b", torch.tensor([token])).tolist() == [expected]
    assert allocation.hot_tokens().tolist() == [3, 50]


def test_settling_moves_rows_and_leaves_every_vector_of_theirs() -> None:
    allocation = tiny()
    weight, moment = torch.randn(2, allocation.num_blocks, 2)

    def read(block: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        numbers = torch.tensor([0 if token < 40 else 2 for token in tokens])
        ids = torch.tensor([t if t < 40 else t - 43 for t in tokens])
        return block[allocation.blocks(ids, numbers, (2,)).squeeze(-1)]

    for owners in ([5, 9, 60], [1, 9, 30, 60], [60], [9, 39, 43, 44]):
        before = [read(block, owners) for block in (weight, moment)]
        allocation.settle(torch.tensor(owners), [weight, moment])
        assert allocation.hot_tokens().tolist() == owners
        for block, old in zip((weight, moment), before, strict=True):
            assert torch.equal(read(block, owners), old)
        assert allocation.blocks(torch.tensor([9]), torch.tensor([0]), (2,)).item() < OWN or (
            9 not in owners
        )


def step(allocation: CafeAllocation, weight: torch.Tensor, pulls: dict[tuple[int, int], float]):
    """One backward pass in which lookup (table, id) has a gradient of that norm."""
    numbers = torch.tensor([table for table, _ in pulls])
    ids = torch.tensor([token for _, token in pulls])
    weight.grad = None
    found = allocation.vectors(weight, ids, numbers, (2,), False)
    direction = torch.tensor([0.6, 0.8])
    (found * direction * torch.tensor(list(pulls.values())).unsqueeze(-1)).sum().backward()


def test_a_token_of_large_gradients_gets_a_row_that_carries_its_vector() -> None:
    allocation = tiny()
    weight = torch.randn(allocation.num_blocks, 2).requires_grad_()
    moment = torch.rand(allocation.num_blocks, 2)
    # The other reader of token 8's hashed row: its gradient is small, whatever the row's is.
    shared = allocation.blocks(torch.arange(40), torch.tensor([0]), (2,)).squeeze(-1)
    other = next(t for t in range(40) if t != 8 and shared[t] == shared[8])
    migration = allocation.adaptation()
    migration.start()
    for count in range(1, 5):
        step(allocation, weight, {(0, 8): 3.0, (0, other): 1.0, (1, 2): 50.0})
        old = allocation.vectors(weight, torch.tensor([8]), torch.tensor([0]), (2,), False)
        migration.after_step([weight.data, moment])
        # Mean norm 2 in table a: scores 1.5 and 0.5 a step, and 6 is reached at the fourth.
        assert allocation.hot_tokens().tolist() == ([8] if count == 4 else [])
    migration.stop()
    place = allocation.blocks(torch.tensor([8]), torch.tensor([0]), (2,)).item()
    assert place == 0
    assert torch.equal(weight[0], old[0])
    assert torch.equal(moment[0], moment[shared[8]])
    # What the two do from now on is their own.
    with torch.no_grad():
        weight[0] += 1
    assert torch.equal(weight[shared[other]], old[0])


def test_decay_makes_a_token_cold_again() -> None:
    allocation = tiny(own=1)
    weight = torch.randn(allocation.num_blocks, 2).requires_grad_()
    migration = allocation.adaptation()
    migration.start()
    for _ in range(6):
        step(allocation, weight, {(0, 8): 1.0})
        migration.after_step([weight.data])
    assert allocation.hot_tokens().tolist() == [8]
    # Ten thresholds have come in at table c's lookups: sums are halved, 8 falls below.
    many = {(2, token): 1.0 for token in range(30)}
    for _ in range(3):
        step(allocation, weight, many)
        migration.after_step([weight.data])
    assert 8 not in allocation.hot_tokens().tolist()
    assert allocation.blocks(torch.tensor([8]), torch.tensor([0]), (2,)).item() >= 1


def test_only_training_is_watched() -> None:
    allocation = tiny()
    weight = torch.randn(allocation.num_blocks, 2).requires_grad_()
    migration = allocation.adaptation()
    step(allocation, weight, {(0, 8): 1.0})
    assert allocation.observed is None
    migration.start()
    with torch.no_grad():
        allocation.vectors(weight, torch.tensor([8]), torch.tensor([0]), (2,), False)
    migration.after_step([weight.data])
    assert float(migration.sketch.mass) == 0
    step(allocation, weight, {(0, 8): 0.0, (1, 1): 1.0})  # no gradient; a whole table
    migration.after_step([weight.data])
    assert float(migration.sketch.mass) == 0
    step(allocation, weight, {(0, 8): 1.0})
    assert len(allocation.observed or ()) == 1
    migration.stop()
    assert allocation.observed is None


def test_the_budget_is_shared_out() -> None:
    tables = [Table("a", 9000, 8), Table("b", 5000, 8), Table("c", 20, 8)]
    allocation = Cafe(hot_share=0.25).allocate(tables, Budget(60_000))
    rows = allocation.arguments["rows"]
    assert rows[2] == 20
    left = 60_000 - 8 * 16 - 20 * 32
    assert allocation.own == int(left / 4) // 36
    assert rows[0] / rows[1] == pytest.approx(9 / 5, rel=0.01)
    assert 60_000 - 32 < allocation.num_bytes().serving <= 60_000
    assert allocation.num_bytes().index == 4 * allocation.own + 8 * 16
    free = Cafe(hot_share=0.25).allocate(tables, Budget(60_000, counts="weights"))
    assert free.own == int((60_000 - 20 * 32) / 4) // 32


def test_every_table_has_a_row_where_memory_is_scarce() -> None:
    # Four rows: the table of two tokens is not kept whole at the cost of the others.
    tables = [Table("a", 2, 8), *(Table(name, 50, 8) for name in "bcd")]
    allocation = Cafe().allocate(tables, Budget(4 * 32 + 8 * 17))
    assert allocation.arguments["rows"] == [1, 1, 1, 1]
    assert allocation.own == 0


def test_everything_whole_where_there_is_room() -> None:
    allocation = Cafe().allocate([Table("a", 100, 8), Table("b", 7, 8)], Budget(20_000))
    assert allocation.arguments["rows"] == [100, 7]
    assert allocation.own == 0
    assert allocation.blocks(torch.tensor([99]), torch.tensor([0]), (8,)).tolist() == [[99]]
    assert allocation.hot_tokens().tolist() == []


def test_what_it_refuses() -> None:
    with pytest.raises(BudgetError, match="cafe: 200 bytes hold 2 rows of 8 floats, 3 tables need"):
        Cafe().allocate([Table(name, 900, 8) for name in "abc"], Budget(200))
    with pytest.raises(ValueError, match="cafe needs a budget"):
        Cafe().allocate(TABLES, None)
    with pytest.raises(UnsupportedError, match="needs num_embeddings"):
        Cafe().allocate([Table("a", None, 8)], Budget(1000))
    with pytest.raises(UnsupportedError, match=r"less than 2\^31 - 1 tokens in all"):
        Cafe().allocate([Table("a", 1 << 31, 8)], Budget(1000))
    for field, value, message in [
        ("hot_share", 1.0, r"in \(0, 1\), found 1.0"),
        ("threshold", 0.0, "above 0, found 0.0"),
        ("decay", 1.5, r"in \(0, 1\], found 1.5"),
        ("buckets_per_row", 0, "at least 1, found 0"),
    ]:
        with pytest.raises(ValueError, match=rf"Cafe.{field} must be {message}"):
            Cafe(**{field: value})
