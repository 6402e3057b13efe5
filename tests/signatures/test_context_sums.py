"""Integer sums: exponents that hold, tokens of very many rows, any order of adding."""

from __future__ import annotations

import numpy as np
import pytest

from lma.signatures import ContextCodeBuilder, SignatureConfig, context_start
from lma.signatures.context_sums import HEAVY_ROWS, ContextSums


@pytest.mark.parametrize("bound", [1e-6, 0.3, 1.0, 77.0])
def test_the_largest_possible_sum_fits(bound):
    supports = np.array([10**10, HEAVY_ROWS + 1, HEAVY_ROWS, 700, 1, 0])
    sums = ContextSums.zeros(supports, 2)
    assert (len(sums.wide), len(sums.narrow)) == (2, 4)
    sums.restart(supports.astype(np.float64), bound)
    largest = supports * bound * np.exp2(sums.exponents.astype(np.float64))
    assert (largest[:2] < 2.0**62).all()
    assert (largest[2:] < 2.0**30).all()
    # No more than two bits are given away, so that rounding stays as fine as it is said to be.
    assert (largest[:2] >= 2.0**60).all()
    assert (largest[2:5] >= 2.0**28).all()


def test_sums_read_as_floats():
    sums = ContextSums.zeros(np.array([HEAVY_ROWS + 1, 5, 5]), 1)
    sums.exponents[:] = 4, 1, 0
    sums.wide[:] = 40
    sums.narrow[:] = [[-3], [7]]
    assert sums[:].ravel().tolist() == [2.5, -1.5, 7.0]
    assert sums[1:2].tolist() == [[-1.5]]
    assert sums[0:1].tolist() == [[2.5]]
    assert sums.shape == (3, 1)


def test_a_token_of_many_rows_keeps_its_small_terms(monkeypatch):
    """Movie 0 is in all 200,000 rows: its sum equals the one in float64 to rounding."""
    # Two movies leave one direction; random signs fill all of them.
    monkeypatch.setattr(context_start, "ITERATIONS", 0)
    rng = np.random.default_rng(0)
    rows = 200_000
    user = rng.integers(0, 500, rows)
    ids = np.stack([user, np.where(rng.random(rows) < 0.01, 1, 0)], 1)
    config = SignatureConfig("context", kind="learned", num_codes=2, code_bits=2, dim=4, passes=1)
    builder = ContextCodeBuilder({"user": 500, "movie": 2}, config)
    builder.update(ids)
    builder.next_pass()
    vectors = builder._state.vectors[builder._state.where["user"]].astype(np.float64)
    builder.update(ids)
    found = builder._state.sums["movie"]
    assert len(found.wide) == 1
    for movie in (0, 1):
        wanted = vectors[user[ids[:, 1] == movie]].sum(0)
        # float32 differences of a row's total and the token's own vector: 2^-24 of each term.
        terms = np.abs(vectors).max() * 2 * np.count_nonzero(ids[:, 1] == movie)
        np.testing.assert_allclose(found[movie : movie + 1][0], wanted, atol=terms * 2.0**-22)


def test_merging_in_any_order_gives_the_same_bits():
    rng = np.random.default_rng(1)
    ids = np.stack([rng.integers(0, 30, 5000), rng.zipf(1.4, 5000) % 50], 1)
    labels = rng.integers(0, 2, 5000)
    config = SignatureConfig(kind="learned", num_codes=2, code_bits=2, dim=8, passes=2)
    tables = []
    for shares in ([(0, 5000)], [(3000, 5000), (0, 17), (17, 3000)]):
        main = ContextCodeBuilder({"user": 30, "movie": 50}, config)
        for _ in range(main.num_passes):
            workers = [main.worker() for _ in shares]
            for worker, (first, last) in zip(workers, shares, strict=True):
                worker.update(ids[first:last], None, labels[first:last])
            for worker in workers:
                main.merge(worker)
            main.next_pass()
        tables.append((main.finish(), main.vectors("movie")))
    assert np.array_equal(tables[0][1], tables[1][1])
    assert tables[0][0].codes.tolist() == tables[1][0].codes.tolist()
