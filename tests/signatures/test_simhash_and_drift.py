"""Codes of given vectors; what moves when a log grows; building over processes."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from set_oracle import as_batch, random_rows

from lma.errors import LmaError
from lma.signatures import (
    MinHashBuilder,
    SignatureConfig,
    SignatureTable,
    SimHashBuilder,
    drift,
    freeze_old,
)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2, np.pi / 2, np.pi])
@pytest.mark.parametrize("code_bits", [1, 4])
def test_agreement_follows_the_angle(angle, code_bits):
    """(1 - theta / pi)^bits within 5 standard errors."""
    agreed = trials = 0
    for seed in range(4):
        builder = SimHashBuilder(["movie"], 5, num_codes=255, code_bits=code_bits, seed=seed)
        axis = np.random.default_rng(seed).normal(size=(2, 5))
        one, two = np.linalg.qr(axis.T)[0].T
        builder.update("movie", [0, 1], [one, 3 * (np.cos(angle) * one + np.sin(angle) * two)])
        codes = builder.finish().codes_of("movie", torch.tensor([0, 1]))
        agreed += int((codes[0] == codes[1]).sum())
        trials += 255
    p = (1 - angle / np.pi) ** code_bits
    assert abs(agreed / trials - p) <= 5 * np.sqrt(p * (1 - p) / trials) + 1e-9


def test_kinds_mix_per_field():
    """Movies by vector, users by context, in one table."""
    movies = SimHashBuilder(["movie"], 3, num_codes=4, code_bits=16)
    movies.update("movie", [5, -7], np.eye(3)[:2])
    movies.update("movie", [5], np.eye(3)[2:])
    users = MinHashBuilder({"user": 2, "movie": 3}, SignatureConfig(num_codes=4, min_support=1))
    users.update(np.array([[0, 1], [1, 2]]), None, [0, 1])
    table = SignatureTable.join([movies.finish(), users.finish({"user": 2, "movie": 0})])
    assert table.section("movie").similarity == "vectors"
    assert table.section("movie").index == "fingerprint"
    assert (table.codes_of("movie", torch.tensor([5, -7, 6]))[:, 0] >= 0).tolist() == [
        True, True, False,
    ]  # fmt: skip
    latest = movies.encode(np.eye(3)[2:].astype(float))[0].tolist()
    assert table.codes_of("movie", torch.tensor([5]))[0].tolist() == latest


def test_simhash_merges_and_refuses():
    one, two = (SimHashBuilder(["a"], 2, num_codes=3, code_bits=4) for _ in range(2))
    one.update("a", [0], [[1.0, 2.0]])
    two.update("a", [1], [[-1.0, 0.5]])
    assert one.merge(two).finish().section("a").num_signed == 2
    assert SimHashBuilder(["a"], 2).finish().tables == ()
    with pytest.raises(LmaError, match="different settings"):
        one.merge(SimHashBuilder(["a"], 2, seed=1))
    with pytest.raises(ValueError, match="not finite"):
        one.update("a", [0], [[np.nan, 1.0]])
    with pytest.raises(ValueError, match="no table 'b'"):
        one.update("b", [0], [[1.0, 1.0]])
    with pytest.raises(TypeError, match="ids must be int64"):
        one.update("a", [0.5], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="dim"):
        SimHashBuilder(["a"], 0)
    with pytest.raises(ValueError, match=r"ids must be \[n\], found shape \[1, 1\]"):
        one.update("a", [[0]], [[1.0, 1.0]])
    with pytest.raises(TypeError, match="list of names, found 'movie'"):
        SimHashBuilder("movie", 2)
    with pytest.raises(LmaError, match="different settings"):
        one.merge(MinHashBuilder({"a": 2}, SignatureConfig()))


def test_vectors_given_are_copied():
    builder, ids = SimHashBuilder(["a"], 2), np.array([5, 7])
    builder.update("a", ids, np.eye(2))
    ids[:] = 9
    assert (builder.finish().find("a", torch.tensor([5, 7, 9])) >= 0).tolist() == [
        True, True, False,
    ]  # fmt: skip


def test_drift_by_hand():
    """User 0 meets one more movie of five; user 1 nothing new; user 2 is new."""
    config = SignatureConfig("context", num_codes=200, min_support=1)
    builder = MinHashBuilder({"user": 3, "movie": 6}, config)
    builder.update(np.array([[0, 0], [0, 1], [0, 2], [0, 3], [1, 4]]))
    old = builder.finish({"user": 2, "movie": 0})
    builder.update(np.array([[0, 5], [1, 4], [2, 0]]))
    new = builder.finish({"user": 3, "movie": 0})
    user = drift(old, new, power=1)["user"]
    assert (user.kept, user.added, user.dropped, user.moved) == (2, 1, 0, 1)
    # A fifth of user 0's codes, so a tenth of both users': 5 standard errors of 200 codes.
    assert abs(user.changed_codes - 0.1) <= 5 * np.sqrt(0.2 * 0.8 / 200) / 2
    assert user.moved_chunks == pytest.approx(user.changed_codes)
    frozen = freeze_old(old, new)
    assert drift(old, frozen)["user"].moved == 0
    third = torch.tensor([2])
    assert torch.equal(frozen.codes_of("user", third), new.codes_of("user", third))
    assert drift(old, old)["user"].changed_codes == 0
    other = MinHashBuilder({"user": 3, "movie": 6}, SignatureConfig("rows", num_codes=200))
    other.update(np.array([[0, 0], [0, 1]]))
    with pytest.raises(ValueError, match="do not compare"):
        drift(old, other.finish())


def test_a_table_that_the_new_signatures_lack_stays():
    config = SignatureConfig("context", min_support=1)
    builder = MinHashBuilder({"user": 3, "movie": 6}, config)
    builder.update(np.array([[0, 0], [1, 5]]))
    old = builder.finish({"user": 2, "movie": 1})
    builder.update(np.array([[0, 3], [2, 0]]))
    new = builder.finish({"user": 3, "movie": 0})
    gone, back = drift(old, new)["movie"], drift(new, old)["movie"]
    assert (gone.kept, gone.added, gone.dropped) == (0, 0, 1)
    assert (back.kept, back.added, back.dropped) == (0, 1, 0)
    frozen = freeze_old(old, new)
    for name in ("user", "movie"):
        report = drift(old, frozen)[name]
        assert (report.moved, report.dropped) == (0, 0)
    assert frozen.provenance["frozen"] == old.provenance
    with pytest.raises(ValueError, match="power must be at least 1, found 0"):
        drift(old, new, power=0)


def test_what_cannot_be_merged_joined_or_compared_says_what_differs():
    def build(**settings):
        builder = MinHashBuilder({"user": 3, "item": 3}, SignatureConfig("context", **settings))
        builder.update(np.array([[0, 1], [0, 1]]))
        return builder

    one = build()
    with pytest.raises(LmaError, match="with itself"):
        one.merge(one)
    assert one.num_rows == 2
    with pytest.raises(LmaError, match=r"settings: num_codes: 8 and 4; seed: 0 and 1$"):
        one.merge(build(num_codes=4, seed=1))
    many = {f"field_{number:02}": 10 for number in range(30)}
    twins = [MinHashBuilder(sizes, SignatureConfig()) for sizes in (many, {**many, "field_29": 7})]
    # Of long settings the part that differs is shown.
    with pytest.raises(LmaError, match=r"'field_29', 10\).* and .*'field_29', 7\)"):
        twins[0].merge(twins[1])
    table, other = one.finish(), build(seed=1).finish()
    with pytest.raises(ValueError, match=r"of one seed, found \[0, 1\]"):
        SignatureTable.join([table, other])
    with pytest.raises(ValueError, match=r"must be \[tokens\], found \[1, 2\]"):
        drift(table, table, ids={"user": torch.tensor([[0, 1]])})


def share_of_log(job):
    """One process's part of the log, from row `first` on."""
    first, values, offsets, labels, similarity = job
    torch.set_num_threads(1)
    builder = MinHashBuilder({"a": 30, "b": 8}, SignatureConfig(similarity, num_codes=4))
    builder.update(values, offsets, labels, first_row=first, total_rows=300)
    return builder


# Python 3.12 and later warn of any fork beside threads; that it works here is what is tested.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_build_the_same_table(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    rng = np.random.default_rng(0)
    rows, labels = random_rows(rng, 300, (30, 8), (1, 3)), rng.integers(0, 2, 300)
    whole = share_of_log((0, *as_batch(rows, 2), labels, "rows"))
    cuts = [(0, 90), (90, 91), (91, 300)]
    jobs = [(a, *as_batch(rows[a:b], 2), labels[a:b], "rows") for a, b in cuts]
    with multiprocessing.get_context(method).Pool(2) as pool:
        parts = pool.map(share_of_log, jobs)
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert torch.equal(merged.finish().codes, whole.finish().codes)
