"""HotSketch: against exact sums, and against SpaceSaving written with lists."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from places_by_hand import to_range

from lma.allocation.hot_sketch import SLOTS, HotSketch
from lma.hashing import combine_int, stream_seed


def bucket_of(token: int, buckets: int, seed: int) -> int:
    return to_range(combine_int(stream_seed(seed, 0), token), buckets)


def filled(tokens: list[int], scores: list[float], buckets: int, seed: int = 3) -> HotSketch:
    sketch = HotSketch(buckets, seed)
    half = len(tokens) // 2
    for part in (slice(None, half), slice(half, None)):
        sketch.update(torch.tensor(tokens[part]), torch.tensor(scores[part], dtype=torch.float32))
    return sketch


def contents(sketch: HotSketch) -> list[dict[int, float]]:
    return [
        {k: s for k, s in zip(keys, sums, strict=True) if k >= 0}
        for keys, sums in zip(sketch.keys.tolist(), sketch.sums.tolist(), strict=True)
    ]


def zipf(count: int, seed: int) -> tuple[list[int], list[float]]:
    generator = np.random.default_rng(seed)
    tokens = np.minimum(generator.zipf(1.2, count), 1000)
    # Sixteenths add up exactly in float32, whatever the order.
    return tokens.tolist(), (generator.integers(1, 40, count) / 16).tolist()


@pytest.mark.parametrize("buckets", [1, 7, 64])
def test_it_is_space_saving_in_every_bucket(buckets: int) -> None:
    tokens, scores = zipf(3000, buckets)
    slots: list[list[tuple[float, int]]] = [[] for _ in range(buckets)]
    for token, score in zip(tokens, scores, strict=True):
        mine = slots[bucket_of(token, buckets, 3)]
        found = [place for place, (_, owner) in enumerate(mine) if owner == token]
        if not found and len(mine) < SLOTS:
            mine.append((score, token))
            continue
        # Of equal sums the first: the paper leaves it open.
        place = found[0] if found else min(range(SLOTS), key=lambda p: mine[p][0])
        mine[place] = (mine[place][0] + score, token)
    expected = [{token: total for total, token in mine} for mine in slots]
    assert contents(filled(tokens, scores, buckets)) == expected


@pytest.mark.parametrize("buckets", [1, 10, 100])
def test_sums_are_bounded_by_the_exact_ones(buckets: int) -> None:
    tokens, scores = zipf(20_000, 5)
    exact, totals = defaultdict(float), [0.0] * buckets
    for token, score in zip(tokens, scores, strict=True):
        exact[token] += score
        totals[bucket_of(token, buckets, 3)] += score
    for bucket, slots in enumerate(contents(filled(tokens, scores, buckets))):
        for token, found in slots.items():
            assert exact[token] <= found <= exact[token] + totals[bucket] / SLOTS
        # Whoever has more than a quarter of a bucket's total is in it.
        for token, total in exact.items():
            if bucket_of(token, buckets, 3) == bucket and total > totals[bucket] / SLOTS:
                assert token in slots


def test_the_hot_ones_are_elected_and_keep_their_slots() -> None:
    sketch = HotSketch(1, 0)
    sketch.update(torch.tensor([5, 6, 7, 8]), torch.tensor([10.0, 20.0, 30.0, 1.0]))
    assert sketch.elect(15.0, 9).tolist() == [6, 7]
    assert sketch.elect(5.0, 2).tolist() == [6, 7]  # no place is left for 5
    # Who is hot keeps the place against larger sums.
    sketch.update(torch.tensor([5]), torch.tensor([90.0]))
    assert sketch.elect(5.0, 2).tolist() == [6, 7]
    # New ones take the least slot, unless its token is hot: 8 first, then 6 would be.
    sketch.update(torch.tensor([100]), torch.tensor([50.0]))
    assert sorted(contents(sketch)[0]) == [5, 6, 7, 100]
    sketch.update(torch.tensor([101]), torch.tensor([1.0]))
    assert sorted(contents(sketch)[0]) == [5, 6, 7, 100]
    assert float(sketch.mass) == 202.0


def test_of_many_that_wait_the_largest_become_hot() -> None:
    sketch = HotSketch(50, 0)
    tokens = torch.arange(20)
    sketch.update(tokens, torch.arange(20, dtype=torch.float32) + 1)
    assert sketch.elect(3.0, 5).tolist() == [15, 16, 17, 18, 19]


def test_decay_makes_them_cold_again() -> None:
    sketch = HotSketch(4, 0)
    sketch.update(torch.tensor([1, 2]), torch.tensor([10.0, 16.0]))
    assert sketch.elect(8.0, 4).tolist() == [1, 2]
    sketch.decay(0.75)
    assert float(sketch.mass) == 0
    assert sketch.elect(8.0, 4).tolist() == [2]
    assert contents(sketch)[bucket_of(1, 4, 0)][1] == 7.5


def test_nothing_is_inserted() -> None:
    sketch = HotSketch(2, 0)
    sketch.update(torch.empty(0, dtype=torch.int64), torch.empty(0))
    assert contents(sketch) == [{}, {}]
    assert sketch.elect(1.0, 4).tolist() == []
