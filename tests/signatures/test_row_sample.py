"""Rows kept in memory: which ones, how many, in whatever order they come."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lma.errors import LmaError
from lma.signatures.row_batch import RowBatch
from lma.signatures.row_sample import RowSample


def batch_of(first: int, count: int) -> RowBatch:
    """Rows whose ids are their numbers, and a bag of their number modulo 3 ids."""
    rows = np.arange(first, first + count)
    lengths = np.concatenate([np.ones(count, np.int64), rows % 3])
    values = np.concatenate([rows, np.repeat(rows, rows % 3)])
    return RowBatch.of(values, np.concatenate([[0], np.cumsum(lengths)]), 2, "test")


def numbers_of(sample: RowSample) -> list[int]:
    return sorted(int(i) for b, _ in sample.pieces for i in b.values[b.feature(0)])


def test_taken_rows_keep_their_bags() -> None:
    taken = batch_of(10, 6).take(np.array([5, 0, 1]))
    assert (taken.num_features, taken.num_rows) == (2, 3)
    assert taken.values.tolist() == [15, 10, 11, 10, 11]
    assert taken.values.dtype == np.int64
    # A value repeated in a bag counts once; row 15 has an empty bag.
    assert taken.offsets.tolist() == [0, 1, 2, 3, 3, 4, 5]


def test_a_log_that_fits_is_kept_whole() -> None:
    sample = RowSample(seed=0, max_entries=10_000)
    sample.add(batch_of(0, 500), 0, np.arange(0, 500, 2))
    sample.add(batch_of(500, 500), 500, np.arange(500))
    assert numbers_of(sample) == [*range(0, 500, 2), *range(500, 1000)]


@pytest.mark.parametrize("cuts", [(0, 4000), (0, 1, 17, 2000, 4000)])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_rows_in_any_order_and_by_any_number_of_workers(
    cuts: tuple[int, ...], workers: int
) -> None:
    wanted = RowSample(seed=3, max_entries=500)
    wanted.add(batch_of(0, 4000), 0, np.arange(4000))
    parts = [RowSample(seed=3, max_entries=500) for _ in range(workers)]
    spans = list(itertools.pairwise(cuts))
    for i, (first, last) in enumerate(reversed(spans)):
        parts[i % workers].add(batch_of(first, last - first), first, np.arange(last - first))
    whole, *others = parts
    for other in others:
        whole.merge(other)
    assert numbers_of(whole) == numbers_of(wanted)
    assert wanted.num_entries <= 500
    assert len(numbers_of(wanted)) > 50
    # Kept by chance, not by place.
    assert 1000 < np.mean(numbers_of(wanted)) < 3000


def test_merging_rows_of_no_number_is_refused_once_not_all_fit() -> None:
    one, two = (RowSample(seed=0, max_entries=500, numbered=False) for _ in range(2))
    for sample in (one, two):
        sample.add(batch_of(0, 100), 0, np.arange(100))
    one.merge(two)
    assert len(numbers_of(one)) == 200
    for _ in range(3):
        two.add(batch_of(0, 200), 0, np.arange(200))
    with pytest.raises(LmaError, match="pass first_row to every update"):
        one.merge(two)
