"""Who is signed: exact in two passes of bounded memory, within a budget of bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hashed_log import HashedLog

from lma.signatures import (
    LogStats,
    SignatureConfig,
    SupportCounter,
    TableStats,
    fit_signatures,
)
from lma.signatures.budget import signature_bytes, signed_within, support_threshold
from lma.signatures.passes import FitPasses

CONFIG = SignatureConfig("context", num_codes=4)
LEARNED = SignatureConfig("context", kind="learned", num_codes=2, code_bits=2, dim=4, passes=1)


def heavy_log(rows=6000):
    """Two tables, Zipf's law, thousands of tokens seen once: twenty times what is held."""
    rng = np.random.default_rng(4)
    user = (rng.zipf(1.25, rows) % 2**40) * 7919
    movie = (rng.zipf(1.6, rows) % 2**40) * 104_729
    labels = rng.integers(0, 2, rows)
    log = HashedLog([[[int(u)], [int(m)]] for u, m in zip(user, movie, strict=True)], labels,
                    ("user", "movie"))  # fmt: skip
    return log, {"user": user, "movie": movie}


def supports_of(columns):
    return {
        n: dict(zip(*np.unique(c, return_counts=True), strict=True)) for n, c in columns.items()
    }


@pytest.mark.parametrize("config", [CONFIG, LEARNED], ids=lambda c: c.kind)
def test_bounded_memory_in_two_passes_equals_exact_counting(config):
    log, _ = heavy_log()
    signed = {"user": 40, "movie": 25}
    exact = fit_signatures(log, config, num_signed=signed)
    bounded = fit_signatures(log, config, num_signed=signed, max_tokens=400)
    assert [s.num_signed for s in bounded.sections] == [40, 25]
    assert torch.equal(bounded.fingerprints, exact.fingerprints)
    assert "may_miss_tokens_of_rows" not in bounded.provenance
    if config is CONFIG:
        assert torch.equal(bounded.codes, exact.codes)


def test_what_bounded_memory_cannot_know_is_said(caplog):
    log, columns = heavy_log()
    table = fit_signatures(log, CONFIG, max_tokens=40)
    (missed,) = {table.provenance["may_miss_tokens_of_rows"]["user"]}
    assert "raise max_tokens" in caplog.text
    supports = supports_of(columns)["user"]
    frequent = [token for token, support in supports.items() if support > missed]
    assert frequent
    assert (table.find("user", torch.tensor(frequent)) >= 0).all()


def test_candidates_hold_the_exact_answer():
    rng = np.random.default_rng(2)
    ids = rng.zipf(1.3, 40_000) % 2**40
    counter = SupportCounter("a", 2000)
    counter.update(ids)
    assert counter.error > 0
    values, supports = np.unique(ids, return_counts=True)
    order = np.lexsort((values, -supports))
    for count in (1, 20, 100):
        found, missed = counter.candidates(count)
        assert missed == 0
        assert set(values[order[:count]].tolist()) <= set(found.tolist())
    wanted = counter.error + 1
    found, missed = counter.candidates(min_support=wanted)
    assert missed == 0
    assert set(values[supports >= wanted].tolist()) <= set(found.tolist())
    assert counter.candidates(min_support=1)[1] == counter.error
    assert counter.candidates(10**6)[1] == counter.error
    assert len(counter.candidates(0)[0]) == 0
    exact = SupportCounter("a")
    exact.update(ids)
    assert exact.candidates(7)[1] == 0
    assert exact.candidates(7)[0].tolist() == values[order[:7]].tolist()


def test_a_budget_decides_the_threshold_by_hand():
    """Supports 9, 5, 5, 2 in a prefix table and 9, 5, 1 in a hashed one; codes of 4 bytes."""
    stats = LogStats.of(
        [TableStats.of_supports("a", [9, 5, 5, 2]), TableStats.of_supports("b", [9, 5, 1])]
    )
    config = SignatureConfig("context", num_codes=2, min_support=2)
    sizes = {"a": 4, "b": None}
    # A fingerprint is 2 bytes more, over a load of 0.9: 7 bytes.
    assert [signature_bytes(config, hashed) for hashed in (False, True)] == [4, 7]
    for budget, least in ((0, 10), (10, 10), (11, 6), (25, 6), (26, 3), (29, 3), (30, 2), (99, 2)):
        assert support_threshold(stats, budget, config, sizes) == least, budget
    assert signed_within(stats, 26, config, sizes) == {"a": 3, "b": 2}
    with pytest.raises(ValueError, match="budget_bytes must be >= 0"):
        support_threshold(stats, -1, config, sizes)


@pytest.mark.parametrize("config", [CONFIG, LEARNED], ids=lambda c: c.kind)
@pytest.mark.parametrize("max_tokens", [None, 1500])
def test_a_table_fits_its_budget(config, max_tokens):
    log, columns = heavy_log()
    budget = 900
    table = fit_signatures(log, config, budget_bytes=budget, max_tokens=max_tokens)
    assert table.signature_bytes + table.index_bytes <= budget + 2 * 8 * 8  # part-filled buckets
    assert "may_miss_tokens_of_rows" not in table.provenance
    supports = supports_of(columns)
    found = {
        name: table.find(name, torch.tensor(list(counts))).numpy() >= 0
        for name, counts in supports.items()
    }
    signed = np.concatenate([np.array(list(supports[n].values()))[found[n]] for n in supports])
    rest = np.concatenate([np.array(list(supports[n].values()))[~found[n]] for n in supports])
    # One threshold for both tables, but for the odd false match of a fingerprint.
    assert signed.min() > np.sort(rest)[-3:].min()
    assert len(signed) >= 20


@pytest.mark.parametrize("kind", ["random", "learned"])
@pytest.mark.parametrize("signed", [{"z": 1}, {"a": -1}])
def test_bad_numbers_are_refused_before_a_row_is_read(kind, signed):
    with pytest.raises(ValueError, match=r"fit_signatures: (no tables \['z'\]|num_signed must)"):
        FitPasses({"a": None}, SignatureConfig("context", kind=kind), num_signed=signed)


def test_budget_and_numbers_exclude_each_other():
    log, _ = heavy_log(70)
    with pytest.raises(ValueError, match="not both"):
        fit_signatures(log, CONFIG, num_signed={"user": 1}, budget_bytes=1)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="budget_bytes must be positive, found 0"):
        FitPasses({"a": None}, CONFIG, budget_bytes=0)
