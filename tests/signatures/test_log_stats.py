"""Support histograms."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lma.signatures import LogStats, TableStats
from lma.signatures import stats as stats_module


def test_by_hand():
    stats = TableStats.of_supports("a", [3, 0, 1, 3, 7])
    assert (stats.supports.tolist(), stats.counts.tolist()) == ([7, 3, 1], [1, 2, 1])
    assert (stats.num_tokens, stats.tokens_with(3), stats.tokens_with(8)) == (4, 3, 0)
    assert [stats.support_of_rank(r) for r in range(5)] == [7, 3, 3, 1, 0]


def test_large_supports_and_many_tokens(monkeypatch):
    """As a plain sort and count, across blocks and the border of what is counted and sorted."""
    monkeypatch.setattr(stats_module, "BLOCK", 1000)
    rng = np.random.default_rng(0)
    supports = np.concatenate([rng.zipf(1.2, 5000) % 10**7, [0, 65_535, 65_536, 65_536, 2**40]])
    found = TableStats.of_supports("a", supports)
    values, counts = np.unique(supports[supports > 0], return_counts=True)
    assert found.supports.tolist() == values[::-1].tolist()
    assert found.counts.tolist() == counts[::-1].tolist()


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=20), min_size=1, max_size=3),
    st.integers(0, 40),
)
def test_threshold_is_the_smallest_that_fits(supports, tokens):
    stats = LogStats.of([TableStats.of_supports(str(i), s) for i, s in enumerate(supports)])
    everyone = np.array([x for s in supports for x in s if x > 0])
    threshold = stats.threshold(tokens)
    assert (everyone >= threshold).sum() <= tokens
    if threshold > 1 and len(everyone):
        assert (everyone >= threshold - 1).sum() > tokens or not (everyone == threshold - 1).any()
