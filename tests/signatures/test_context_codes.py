"""ContextCodeBuilder against dense linear algebra, and what must not change its result."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from set_oracle import as_batch, random_rows

from lma.errors import LmaError
from lma.hashing import table_salt, token_keys
from lma.kernels.reference.context_vectors import context_sums
from lma.signatures import ContextCodeBuilder, SignatureConfig, context_start
from lma.signatures.context_space import sign_vectors

NAMES = ("user", "movie", "genre")
SIZES = (12, 9, 5)
SIMILARITIES = ("context", "labelled_context", "positive_context")


def log(seed=0, num_rows=300, sizes=SIZES, longest=(1, 1, 3)):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, num_rows, sizes, longest)
    return rows, rng.integers(0, 2, num_rows)


def build(rows, labels, config, sizes=SIZES, cuts=(), num_signed=None):
    builder = ContextCodeBuilder(dict(zip(NAMES, sizes, strict=False)), config, num_signed)
    for _ in range(builder.num_passes):
        for first, last in itertools.pairwise([0, *cuts, len(rows)]):
            builder.update(*as_batch(rows[first:last], len(sizes)), labels[first:last])
        builder.next_pass()
    return builder


def config_of(similarity="labelled_context", **changes):
    values = {"num_codes": 2, "code_bits": 3, "dim": 6, "passes": 2, "min_support": 1}
    return SignatureConfig(similarity, kind="learned", **{**values, **changes})


def dense_sums(rows, labels, config, passes):
    """All passes with explicit matrices: {table: (sums, rows of every token)}."""
    names = [(n, i) for n, size in zip(NAMES, SIZES, strict=True) for i in range(size)]
    number = {token: i for i, token in enumerate(names)}
    rate, shrinkage = labels.mean(), config.shrinkage
    met = [{number[n, v] for n, bag in zip(NAMES, row, strict=True) for v in bag} for row in rows]
    support, positive = np.zeros(len(names)), np.zeros(len(names))
    for row, label in zip(met, labels, strict=True):
        support[list(row)] += 1
        positive[list(row)] += label
    mean = (positive - support * rate) / (support + shrinkage)

    def matrix_of(similarity, fields=()):
        matrix = np.zeros((len(names), len(names)))
        for row, label in zip(met, labels, strict=True):
            for v, u in itertools.permutations(row, 2):
                if names[u][0] not in (fields or NAMES):
                    continue
                weight = {"context": 1.0, "positive_context": float(label)}.get(
                    similarity, label - rate - mean[v] - mean[u]
                )
                matrix[v, u] += weight
        return matrix

    vectors = np.concatenate(
        [
            sign_vectors(
                token_keys(np.uint64(table_salt(n)), np.arange(size)), config.dim, config.seed
            )
            for n, size in zip(NAMES, SIZES, strict=True)
        ]
    ).astype(np.float64)
    bounds = np.cumsum([0, *SIZES])
    for number_of_pass in range(passes):
        similarity = config.similarity
        if similarity == "labelled_context" and number_of_pass + 1 < passes:
            similarity = "positive_context"
        scale = support if similarity == "context" else positive
        popularity = (scale + shrinkage) ** -0.5
        used = positive if similarity == "positive_context" else support
        last = number_of_pass + 1 == passes
        fields = config.context_fields if last else ()
        sums = matrix_of(similarity, fields) @ (vectors * popularity[:, None])
        if last:
            break
        for a, b in itertools.pairwise(bounds):
            n = used[a:b, None]
            centred = (sums[a:b] - n * (sums[a:b].sum(0) / n.sum())) * popularity[a:b, None]
            u, s, vt = np.linalg.svd(centred, full_matrices=False)
            kept = s > 1e-3 * s[0]
            vectors[a:b] = u[:, kept] @ vt[kept]
    return {
        n: (sums[a:b], used[a:b])
        for n, (a, b) in zip(NAMES, itertools.pairwise(bounds), strict=True)
    }


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("iterations", "passes"), [(0, 1), (0, 2), (0, 3), (1, 1), (2, 2)])
@pytest.mark.parametrize("fields", [(), ("movie", "genre")], ids=["all fields", "some fields"])
def test_sums_are_those_of_explicit_matrices(similarity, iterations, passes, fields, monkeypatch):
    """Iterations on a sample that holds the whole log are as many more passes over it."""
    monkeypatch.setattr(context_start, "ITERATIONS", iterations)
    monkeypatch.setattr(context_start, "LEAST_GAIN", -1.0)
    rows, labels = log()
    rows = [[sorted(set(bag)) for bag in row] for row in rows]
    config = config_of(similarity, passes=passes, context_fields=fields)
    builder = build(rows, labels, config)
    for table, (sums, used) in dense_sums(rows, labels, config, iterations + passes).items():
        where = builder._state.where[table]
        # Tokens are in order of id; float32 sums of some hundred terms.
        np.testing.assert_allclose(builder._state.rows[where], used)
        scale = np.abs(sums).max()
        np.testing.assert_allclose(builder._state.sums[table][:], sums, atol=2e-4 * scale)


def test_context_sums_by_hand():
    """Row 0 has entries a, b; row 1 has a, c: q_a = 1, q_b = 10, q_c = 100."""
    row = np.array([0, 0, 1, 1])
    q = np.array([[1.0], [10.0], [1.0], [100.0]], np.float32)
    targets = np.array([1.0, -1.0], np.float32)
    assert context_sums(row, q, None, targets, 2).ravel().tolist() == [10, 1, 100, 1]
    means = np.array([0.5, 0.25, 0.5, 0.0], np.float32)
    wanted = [(1 - 0.5 - 0.25) * 10, (1 - 0.25 - 0.5) * 1, (-1 - 0.5) * 100, (-1 - 0.5) * 1]
    assert context_sums(row, q, means, targets, 2).ravel().tolist() == wanted


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_threads_and_batches_do_not_matter(similarity):
    rows, labels = log(num_rows=9000)
    config = config_of(similarity)
    before = torch.get_num_threads()
    results = []
    try:
        for threads, cuts in ((1, ()), (2, (1, 63, 5000)), (5, (4096,))):
            torch.set_num_threads(threads)
            builder = build(rows, labels, config, cuts=cuts)
            sums = np.concatenate([s[:] for s in builder._state.sums.values()])
            results.append((sums, builder.finish().codes))
    finally:
        torch.set_num_threads(before)
    for sums, codes in results[1:]:
        assert np.array_equal(sums, results[0][0])
        assert torch.equal(codes, results[0][1])


def test_workers_merge_to_the_whole():
    """Three shares of every pass, sent as bytes, merged in another order."""
    rows, labels = log(num_rows=500)
    config = config_of()
    whole = build(rows, labels, config)
    shares = [(0, 100), (100, 350), (350, 500)]
    main = ContextCodeBuilder(dict(zip(NAMES, SIZES, strict=True)), config)
    for _ in range(main.num_passes):
        workers = [pickle.loads(pickle.dumps(main.worker())) for _ in shares]
        for worker, (first, last) in zip(workers, shares, strict=True):
            worker.update(*as_batch(rows[first:last], 3), labels[first:last])
        for worker in reversed(workers):
            main.merge(worker)
        main.next_pass()
    for table in NAMES:
        assert np.array_equal(main.vectors(table), whole.vectors(table))
    assert main.stats().tables["user"].supports.tolist() == (
        whole.stats().tables["user"].supports.tolist()
    )


def test_alike_tokens_get_alike_codes():
    """Users 0-9 like movies 0-4 and dislike 5-9, users 10-19 the other way round."""
    rng = np.random.default_rng(0)
    user, movie = rng.integers(0, 20, 8000), rng.integers(0, 10, 8000)
    labels = ((user < 10) == (movie < 5)).astype(int)
    labels = np.where(rng.random(8000) < 0.2, 1 - labels, labels)
    config = SignatureConfig(kind="learned", num_codes=2, code_bits=1, dim=8)
    builder = ContextCodeBuilder({"user": 20, "movie": 10}, config)
    for _ in range(builder.num_passes):
        builder.update(np.stack([user, movie], 1), None, labels)
        builder.next_pass()
    first = builder.vectors("user")[:, 0]
    assert len(set(np.sign(first[:10]))) == 1
    assert np.sign(first[0]) == -np.sign(first[10])
    table = builder.finish()
    codes = table.codes_of("user", torch.arange(20))
    # One of the two codes reads the direction that tells the groups apart.
    assert any(
        len(set(codes[:10, c].tolist())) == 1 and codes[0, c] != codes[10, c] for c in (0, 1)
    )
    assert table.section("user").kind == "learned"


def random_label_log(seed, support):
    """50 movies, 4000 users of few rows each; labels mean nothing."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(4000), support)
    movie = rng.integers(0, 50, len(user))
    return np.stack([user, movie], 1), rng.integers(0, 2, len(user))


def auc(labels, scores):
    order = scores.argsort(kind="stable").argsort()
    # Ties share their ranks' mean.
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.bincount(inverse, order)[inverse] / counts[inverse]
    positive = labels == 1
    n = positive.sum()
    return (rank[positive].sum() - n * (n - 1) / 2) / (n * (len(labels) - n))


@pytest.mark.parametrize("similarity", ["labelled_context", "positive_context"])
def test_codes_of_random_labels_say_nothing_of_new_rows(similarity):
    ids, labels = random_label_log(0, 6)
    fresh_ids, fresh_labels = random_label_log(1, 6)
    config = SignatureConfig(similarity, kind="learned", num_codes=2, code_bits=4, dim=8)
    builder = ContextCodeBuilder({"user": 4000, "movie": 50}, config)
    for _ in range(builder.num_passes):
        builder.update(ids, None, labels)
        builder.next_pass()
    codes = builder.finish({"user": 4000, "movie": 0}).codes_of("user", torch.arange(4000)).numpy()
    cell = codes[:, 0] * 16 + codes[:, 1]

    def score(at, trained_on, target):
        """Mean label of (the user's codes, movie), smoothed: what a model could learn of them."""
        key = cell[trained_on[:, 0]] * 50 + trained_on[:, 1]
        total = np.bincount(key, target, 256 * 50)
        count = np.bincount(key, minlength=256 * 50)
        return ((total + 0.5) / (count + 1))[cell[at[:, 0]] * 50 + at[:, 1]]

    found = auc(fresh_labels, score(fresh_ids, ids, labels))
    # The AUC of scores that know nothing has variance 1 / (12 n) * (1 + 1) for n rows per class.
    assert abs(found - 0.5) <= 5 * np.sqrt(1 / (6 * len(labels) / 2))


def test_few_labels_do_not_show_in_codes():
    """4000 users of 3 rows beside 500 of 60, labels random: the 4000 get one and the same code."""
    rng = np.random.default_rng(3)
    user = np.concatenate([np.repeat(np.arange(500), 60), np.repeat(np.arange(500, 4500), 3)])
    ids = np.stack([user, rng.integers(0, 50, len(user))], 1)
    labels = rng.integers(0, 2, len(user))
    config = SignatureConfig(kind="learned", num_codes=2, code_bits=4, dim=8)
    builder = ContextCodeBuilder({"user": 4500, "movie": 50}, config)
    for _ in range(builder.num_passes):
        builder.update(ids, None, labels)
        builder.next_pass()
    codes = builder.finish().codes_of("user", torch.arange(4500))
    assert len(codes[500:].unique(dim=0)) == 1
    assert len(codes[:500].unique(dim=0)) > 50


def test_encode_repeats_the_codes_of_training():
    """Encoding all training rows gives every token the code it has."""
    rows, labels = log(num_rows=400, longest=(1, 1, 1))
    for similarity in SIMILARITIES:
        builder = build(rows, labels, config_of(similarity))
        table = builder.finish()
        ids, codes = builder.encode("movie", *as_batch(rows, 3), labels)
        assert ids.tolist() == list(range(SIZES[1]))
        assert codes.tolist() == table.codes_of("movie", torch.arange(SIZES[1])).tolist()


def test_encode_of_a_new_token():
    """A new user who rates as user 0 did gets user 0's codes."""
    rows, labels = log(num_rows=600, longest=(1, 1, 1))
    builder = build(rows, labels, config_of())
    table = builder.finish()
    mine = [i for i, row in enumerate(rows) if row[0] == [0]]
    new = [[[0], *rows[i][1:]] for i in mine]
    values, offsets = as_batch(new, 3)
    values[: len(new)] = 10**12
    ids, codes = builder.encode("user", values, offsets, labels[mine])
    assert ids.tolist() == [10**12]
    assert codes[0].tolist() == table.codes_of("user", torch.tensor([0]))[0].tolist()


def test_a_plan_after_counting():
    rows, labels = log()
    builder = ContextCodeBuilder(dict(zip(NAMES, SIZES, strict=True)), config_of())
    batch = (*as_batch(rows, 3), labels)
    builder.update(*batch)
    assert builder.stats().tables["movie"].num_tokens == SIZES[1]
    builder.next_pass({"user": 5, "movie": 0, "genre": 5})
    for _ in range(builder.config.passes):
        builder.update(*batch)
        builder.next_pass()
    table = builder.finish()
    assert {s.table: s.num_signed for s in table.sections} == {"user": 5, "genre": 5}
    assert builder.finish({"user": 2, "genre": 0}).section("user").num_signed == 2
    # Tokens without codes have vectors all the same: they are context.
    assert builder.vectors("movie").shape == (SIZES[1], 6)


def test_misuse_is_told():
    rows, labels = log(num_rows=20)
    builder = ContextCodeBuilder(dict(zip(NAMES, SIZES, strict=True)), config_of())
    batch = (*as_batch(rows, 3), labels)
    with pytest.raises(LmaError, match="0 of 3 passes"):
        builder.finish()
    with pytest.raises(ValueError, match="needs labels"):
        builder.update(*batch[:2])
    builder.update(*batch)
    builder.next_pass()
    with pytest.raises(LmaError, match="saw 0 rows"):
        builder.next_pass()
    with pytest.raises(ValueError, match="outside"):
        builder.update(np.full((1, 3), 99), None, [1])
    other = build(rows, labels, config_of(seed=5))
    with pytest.raises(LmaError, match="different settings"):
        builder.merge(other)
    done = build(rows, labels, config_of())
    with pytest.raises(LmaError, match="all passes are done"):
        done.update(*batch)
    with pytest.raises(LmaError, match="all passes are done"):
        done.next_pass()
    with pytest.raises(LmaError, match="has no codes"):
        done.encode("user", *batch)
    with pytest.raises(ValueError, match="kind must be 'learned'"):
        ContextCodeBuilder({}, SignatureConfig())


@pytest.mark.parametrize(
    ("values", "offsets", "labels", "error", "match"),
    [
        (np.array([[0.5]]), None, [0], TypeError, "int64 ids, found float64"),
        (np.array([[2**63]], np.uint64), None, [0], TypeError, "found uint64"),
        ([[2**64]], None, [0], TypeError, "int64 ids, found object"),
        (np.array([[7]]), None, [0], ValueError, "id 7 of table 'a' is outside"),
        (np.array([1]), [0, 1, 0, 1], [0, 0, 0], ValueError, "offsets must ascend"),
        (np.array([1]), [], [0], ValueError, "offsets must be integers"),
        (np.array([[1]]), None, [2], ValueError, "labels must be 0 or 1"),
        (np.array([[1]]), None, None, ValueError, "needs labels"),
        (np.array([[1]]), None, [0, 1], ValueError, r"shape \[1\]"),
    ],
)
def test_bad_batches_change_no_pass(values, offsets, labels, error, match):
    builder = ContextCodeBuilder({"a": 5}, config_of())
    for _ in range(2):
        rows, before = builder.num_rows, builder.stats().num_tokens
        with pytest.raises(error, match=match):
            builder.update(values, offsets, labels)
        assert (builder.num_rows, builder.stats().num_tokens) == (rows, before)
        if builder.passes_done == 0:
            builder.update(np.array([[1], [2]]), None, [0, 1])
            builder.next_pass()
    assert not builder._state.sums["a"].narrow.any()


def test_a_bad_row_number_changes_no_pass():
    builder = ContextCodeBuilder({"a": 5}, config_of())
    with pytest.raises(ValueError, match="first_row"):
        builder.update(np.array([[1]]), None, [0], first_row=1 << 63)
    assert (builder.num_rows, builder.stats().num_tokens) == (0, 0)


@pytest.mark.parametrize("seed", [-1, (1 << 32) - 1, 1 << 40, 1 << 70])
def test_any_seed_makes_codes(seed):
    """k-means' own random numbers start from 32 bits; the last passes over a log must not fail."""
    rows, labels = log()
    found = build(rows, labels, config_of(seed=seed)).finish()
    again = build(rows, labels, config_of(seed=seed)).finish()
    assert torch.equal(found.codes, again.codes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"similarity": "rows"}, "no learned codes"),
        ({"code_bits": 13}, "at most 12"),
        ({"num_codes": 40}, "at most dim"),
        ({"sample_rows": 5}, "sample_rows must be None"),
        ({"quantiser": "tree"}, "quantiser must be one of"),
        ({"shrinkage": -1.0}, "shrinkage"),
        ({"passes": 0}, "passes must be 1 to 10"),
    ],
)
def test_config_refuses(change, match):
    with pytest.raises(ValueError, match=match):
        SignatureConfig(**{"kind": "learned", **change})


def test_kinds_have_their_own_defaults():
    random, learned = SignatureConfig(), SignatureConfig(kind="learned")
    assert (random.num_codes, random.code_bits) == (8, 16)
    assert (learned.num_codes, learned.code_bits) == (4, 8)


def test_empty_log():
    builder = ContextCodeBuilder({"a": 3, "b": 0}, config_of())
    for _ in range(builder.num_passes):
        builder.update(np.zeros((0, 2), np.int64), None, np.zeros(0))
        builder.next_pass()
    assert builder.finish().tables == ()
