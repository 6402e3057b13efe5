"""MinHashBuilder against Python sets, and what must not change its result."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from set_oracle import as_batch, element_sets, expected_codes, own_codes, random_rows

from lma.errors import LmaError
from lma.signatures import ContextCodeBuilder, MinHashBuilder, SignatureConfig

NAMES = ("user", "movie", "genre")
SIMILARITIES = ("rows", "context", "labelled_context", "positive_context")


def build(rows, labels, config, sizes, cuts=(), num_signed=None):
    builder = MinHashBuilder(dict(zip(NAMES, sizes, strict=False)), config, num_signed)
    for first, last in itertools.pairwise([0, *cuts, len(rows)]):
        values, offsets = as_batch(rows[first:last], len(builder.tables))
        builder.update(values, offsets, labels[first:last], first_row=first, total_rows=len(rows))
    return builder


def all_codes(table):
    return {
        (s.table, i): table.codes_of(s.table, torch.tensor([i]))[0].tolist()
        for s in table.sections
        for i in range(s.num_signed)
    }


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("longest", [(1, 1, 1), (1, 1, 4), (3, 2, 4)], ids=str)
def test_codes_are_the_hashes_of_the_sets_winners(similarity, longest):
    rng = np.random.default_rng(1)
    sizes = (6, 9, 5)
    rows = random_rows(rng, 40, sizes, longest)
    labels = rng.integers(0, 2, len(rows))
    config = SignatureConfig(similarity, num_codes=5, code_bits=11, min_support=1, seed=3)
    found = all_codes(
        build(rows, labels, config, sizes).finish(dict(zip(NAMES, sizes, strict=True)))
    )
    sets = element_sets(rows, labels, NAMES, similarity, seed=3)
    for (table, token), codes in found.items():
        elements = sets.get((table, token))
        wanted = (
            expected_codes(elements, 5, 11, 3) if elements else own_codes(table, token, 5, 11, 3)
        )
        assert codes == wanted, (table, token)


@pytest.mark.parametrize("similarity", SIMILARITIES[1:])
@pytest.mark.parametrize("fields", [("movie",), ("user", "genre")], ids=str)
def test_only_the_context_fields_chosen_are_met(similarity, fields):
    rng = np.random.default_rng(1)
    sizes = (6, 9, 5)
    rows = random_rows(rng, 40, sizes, (3, 1, 4))
    labels = rng.integers(0, 2, len(rows))
    config = SignatureConfig(
        similarity, num_codes=5, code_bits=11, min_support=1, seed=3, context_fields=fields
    )
    found = all_codes(
        build(rows, labels, config, sizes).finish(dict(zip(NAMES, sizes, strict=True)))
    )
    sets = element_sets(rows, labels, NAMES, similarity, seed=3, fields=fields)
    for (table, token), codes in found.items():
        elements = sets.get((table, token))
        wanted = (
            expected_codes(elements, 5, 11, 3) if elements else own_codes(table, token, 5, 11, 3)
        )
        assert codes == wanted, (table, token)


@pytest.mark.parametrize("kind", ["random", "learned"])
def test_an_unknown_context_field_is_refused_at_once(kind):
    builder = {"random": MinHashBuilder, "learned": ContextCodeBuilder}[kind]
    config = SignatureConfig("context", kind=kind, context_fields=("film",))
    with pytest.raises(ValueError, match="no field 'film' among \\['user', 'movie'\\]"):
        builder({"user": 3, "movie": 4}, config)
    with pytest.raises(ValueError, match="context_fields must be empty"):
        SignatureConfig("rows", context_fields=("movie",))
    with pytest.raises(TypeError, match="context_fields"):
        SignatureConfig("context", context_fields="movie")


def test_two_rows_worked_by_hand():
    """Users 0 and 1 met the same movie, so their contexts are equal; their rows are not."""
    values, labels = np.array([[0, 4], [1, 4]]), np.array([1, 0])
    agree = {}
    for similarity in SIMILARITIES:
        config = SignatureConfig(similarity, num_codes=8, min_support=1)
        builder = MinHashBuilder({"user": 2, "movie": 5}, config)
        builder.update(values, None, labels)
        codes = builder.finish({"user": 2, "movie": 5}).codes_of("user", torch.tensor([0, 1]))
        agree[similarity] = int((codes[0] == codes[1]).sum())
    assert agree == {"rows": 0, "context": 8, "labelled_context": 0, "positive_context": 0}


def test_row_sets_share_across_tables():
    """User 0 and movie 4 occur in exactly the same rows: psi = 1."""
    builder = MinHashBuilder({"user": 1, "movie": 5}, SignatureConfig("rows", min_support=1))
    builder.update(np.array([[0, 4], [0, 4]]))
    table = builder.finish({"user": 1, "movie": 5})
    assert table.similarity(("user", 0), ("movie", 4)) == 1.0


def test_a_repeated_value_counts_once_and_its_siblings_are_context():
    """Genres [2, 2, 3] of one row: 2 meets only 3, 3 meets only 2; support is 1 each."""
    config = SignatureConfig("context", num_codes=4, min_support=1)
    builder = MinHashBuilder({"genre": 4}, config)
    builder.update(np.array([2, 2, 3]), np.array([0, 3]))
    assert builder.stats().tables["genre"].num_tokens == 2
    assert builder.stats().tables["genre"].supports.tolist() == [1]
    codes = builder.finish({"genre": 4}).codes_of("genre", torch.tensor([2, 3]))
    assert codes[0].tolist() == own_codes("genre", 3, 4, 16)
    assert codes[1].tolist() == own_codes("genre", 2, 4, 16)


def test_golden_codes():
    """Codes are file format: these values change only together with the FORMAT of tables."""
    rows = [[[0], [1], [0, 2]], [[1], [1], []], [[0], [0], [2, 2, 1]]]
    for similarity, wanted in GOLDEN.items():
        config = SignatureConfig(similarity, num_codes=2, min_support=1)
        table = build(rows, np.array([1, 0, 1]), config, (2, 2, 3)).finish()
        found = [table.codes_of(n, torch.tensor([i]))[0].tolist() for n, i in GOLDEN_TOKENS]
        assert found == wanted, similarity


GOLDEN_TOKENS = (("user", 0), ("movie", 1), ("genre", 2))
GOLDEN = {
    "rows": [[5565, 45158], [35052, 25919], [5565, 45158]],
    "context": [[49898, 41877], [10812, 22726], [49898, 22726]],
    "labelled_context": [[9093, 62514], [9093, 46915], [9093, 62514]],
}


@pytest.mark.parametrize("similarity", SIMILARITIES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_batches_and_merging_do_not_matter(similarity, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    sizes = (4, 7, 3)
    rows = random_rows(rng, 25, sizes, (1, 1, 3))
    labels = rng.integers(0, 2, len(rows))
    config = SignatureConfig(similarity, num_codes=3, sample_rows=15, min_support=1)
    whole = build(rows, labels, config, sizes)
    cuts = sorted(data.draw(st.sets(st.integers(1, 24), max_size=4)))
    cut_up = build(rows, labels, config, sizes, cuts)
    assert torch.equal(cut_up.finish().codes, whole.finish().codes)
    parts = []
    for first, last in itertools.pairwise([0, *cuts, len(rows)]):
        part = MinHashBuilder(dict(zip(NAMES, sizes, strict=True)), config)
        part.update(
            *as_batch(rows[first:last], 3), labels[first:last], first_row=first, total_rows=25
        )
        parts.append(part)
    order = data.draw(st.permutations(parts))
    merged = order[0]
    for part in order[1:]:
        merged.merge(part)
    assert torch.equal(merged.finish().codes, whole.finish().codes)
    assert merged.num_rows == whole.num_rows
    for name, stats in whole.stats().tables.items():
        assert merged.stats().tables[name].supports.tolist() == stats.supports.tolist()


@pytest.mark.parametrize("psi", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("code_bits", [1, 6, 16])
def test_agreement_of_large_sets(psi, code_bits):
    """Sets of 10,000 rows: p = psi + (1 - psi) / 2^bits within 5 standard errors."""
    size = 10_000
    shared = round(2 * size * psi / (1 + psi))
    rows_a, rows_b = range(size), range(size - shared, 2 * size - shared)
    total = 2 * size - shared
    in_a, in_b = np.isin(range(total), rows_a), np.isin(range(total), rows_b)
    exact = shared / total
    agreed = trials = 0
    for seed in range(3):
        config = SignatureConfig("rows", num_codes=255, code_bits=code_bits, seed=seed)
        builder = MinHashBuilder({"a": 1, "b": 1}, config)
        lengths = np.concatenate([in_a, in_b]).astype(np.int64)
        builder.update(np.zeros(lengths.sum(), np.int64), np.append(0, np.cumsum(lengths)))
        table = builder.finish()
        zero = torch.tensor([0])
        agreed += int((table.codes_of("a", zero) == table.codes_of("b", zero)).sum())
        trials += 255
    p = exact + (1 - exact) / 2**code_bits
    assert abs(agreed / trials - p) <= 5 * np.sqrt(p * (1 - p) / trials) + 1e-12


def test_jaccard_of_contexts_is_estimated_without_bias():
    rng = np.random.default_rng(5)
    sizes = (12, 30, 8)
    rows = random_rows(rng, 120, sizes, (1, 1, 3))
    labels = rng.integers(0, 2, len(rows))
    config = SignatureConfig("labelled_context", num_codes=255, code_bits=4, min_support=1)
    table = build(rows, labels, config, sizes).finish()
    sets = element_sets(rows, labels, NAMES, "labelled_context")
    errors, variances = [], []
    for a, b in itertools.combinations(range(12), 2):
        psi = len(sets["user", a] & sets["user", b]) / len(sets["user", a] | sets["user", b])
        p = psi + (1 - psi) / 16
        errors.append(table.similarity(("user", a), ("user", b)) - psi)
        variances.append(p * (1 - p) / 255 / (1 - 1 / 16) ** 2)
        assert abs(errors[-1]) <= 5 * np.sqrt(variances[-1])
    # The 66 pairs are not independent; the mean's standard error is at most that of one pair.
    assert abs(np.mean(errors)) <= 2 * np.sqrt(np.mean(variances))
    assert np.sqrt(np.mean(np.square(errors))) <= 1.5 * np.sqrt(np.mean(variances))


def test_sample_takes_about_the_wanted_rows():
    config = SignatureConfig("rows", sample_rows=5000)
    builder = MinHashBuilder({"a": 1}, config)
    for first in range(0, 50_000, 10_000):
        builder.update(np.zeros((10_000, 1), np.int64), first_row=first, total_rows=50_000)
    assert abs(int(builder.sampled["a"][0]) - 5000) <= 5 * np.sqrt(5000 * 0.9)
    assert builder.stats().tables["a"].supports.tolist() == [50_000]


def test_finish_keeps_tokens_by_support():
    values = np.array([[0], [0], [0], [1], [1], [2]])
    builder = MinHashBuilder({"a": 5}, SignatureConfig("rows", min_support=2))
    builder.update(values)
    assert builder.finish().section("a").num_signed == 2
    assert builder.finish({"a": 3}).section("a").num_signed == 3
    assert builder.finish({"a": 0}).tables == ()


def test_empty_input():
    builder = MinHashBuilder({"a": 3, "b": 2}, SignatureConfig("context"))
    builder.update(np.zeros((0, 2), np.int64))
    builder.update(np.zeros(0, np.int64), np.zeros(1, np.int64))
    builder.update(np.zeros(0, np.int64), np.zeros(5, np.int64))
    assert builder.num_rows == 2
    assert builder.finish().tables == ()
    assert builder.stats().num_tokens == 0


@pytest.mark.parametrize(
    ("values", "offsets", "labels", "error", "match"),
    [
        (np.array([[0.5]]), None, None, TypeError, "int64 ids, found float64"),
        (np.array([[1]], np.uint64), None, None, TypeError, "found uint64"),
        (np.array([[0, 1]]), None, None, ValueError, r"\[batch, 1\], found \[1, 2\]"),
        (np.array([7]), np.array([0, 1]), None, ValueError, "id 7 of table 'a' is outside"),
        (np.array([-1]), np.array([0, 1]), None, ValueError, "id -1 of table 'a'"),
        (np.array([1]), np.array([0, 2]), None, ValueError, "offsets must ascend"),
        (np.array([1]), np.array([0, 1, 0, 1]), None, ValueError, "offsets must ascend"),
        (np.array([1]), np.array([], np.int64), None, ValueError, "offsets must"),
        (np.array([1]), np.array([0.0, 1.0]), None, ValueError, "offsets must be integers"),
        (np.array([[0]]), None, None, ValueError, "needs labels"),
        (np.array([[0]]), None, np.array([2]), ValueError, "labels must be 0 or 1"),
        (np.array([[0]]), None, np.array([np.nan]), ValueError, "labels must be 0 or 1"),
        (np.array([[0]]), None, np.array([0, 1]), ValueError, r"shape \[1\]"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(values, offsets, labels, error, match):
    builder = MinHashBuilder({"a": 5}, SignatureConfig())
    with pytest.raises(error, match=match):
        builder.update(values, offsets, np.zeros(1) if match.startswith("id") else labels)
    assert builder.num_rows == 0
    assert builder.stats().num_tokens == 0


def test_ids_beyond_int64_are_told_what_to_do():
    builder = MinHashBuilder({"a": None}, SignatureConfig("rows"))
    for values in ([[1], [1 << 63]], [[1 << 64]], np.array([[1 << 63]], np.uint64)):
        with pytest.raises(TypeError, match=r"beyond int64.*\.view\(np\.int64\)"):
            builder.update(values)
    assert builder.num_rows == 0


@pytest.mark.parametrize(
    ("numbers", "error", "match"),
    [
        ({"total_rows": 0}, ValueError, "total_rows must be .* found 0"),
        ({"total_rows": 1}, ValueError, "at least the 2 of this batch, found 1"),
        ({"total_rows": 9, "first_row": -1}, ValueError, "first_row must be .* found -1"),
        ({"total_rows": 9, "first_row": 2**63 - 2}, ValueError, "first_row must be"),
        ({"total_rows": 9, "first_row": "x"}, TypeError, "first_row must be an integer"),
    ],
)
def test_bad_row_numbers_change_nothing(numbers, error, match):
    builder = MinHashBuilder({"a": 5}, SignatureConfig("rows", sample_rows=3))
    with pytest.raises(error, match=match):
        builder.update(np.array([[1], [2]]), **numbers)
    assert builder.num_rows == 0
    assert builder.stats().num_tokens == 0


BUILDERS = {
    "random": (MinHashBuilder, SignatureConfig("context")),
    "learned": (ContextCodeBuilder, SignatureConfig("context", kind="learned", code_bits=2)),
}


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"num_signed": {"z": 1}}, ValueError, r"no tables \['z'\]; there are"),
        ({"num_signed": {"a": -1}}, ValueError, "found -1 for table 'a'"),
        ({"num_signed": {"b": 1.5}}, ValueError, "found 1.5 for table 'b'"),
        ({"tokens": {"z": [1]}}, ValueError, r"no tables \['z'\]"),
        ({"tokens": {"a": [1]}}, ValueError, "table 'a' has 5 ids; give num_signed"),
        ({"tokens": {"b": [1, 2, 1]}}, ValueError, "all different, found 1 twice"),
        ({"tokens": {"b": [0.5]}}, TypeError, "tokens of table 'b' must be int64 ids"),
        ({"tokens": {"b": np.array([1], np.uint64)}}, TypeError, "found uint64"),
    ],
)
def test_builders_refuse(kind, arguments, error, match):
    make, config = BUILDERS[kind]
    with pytest.raises(error, match=match):
        make({"a": 5, "b": None}, config, **arguments)


@pytest.mark.parametrize("kind", BUILDERS)
def test_bad_sizes_and_numbers_are_told(kind):
    make, config = BUILDERS[kind]
    for size in (-1, 5.0, "5"):
        with pytest.raises(ValueError, match=f"needs a size >= 0 or None, found {size!r}"):
            make({"a": size}, config)
    builder = make({"a": 5, "b": None}, config)
    for _ in range(getattr(builder, "num_passes", 1)):
        builder.update(np.array([[0, -7], [0, -7], [1, 8]]))
        if kind == "learned":
            with pytest.raises(ValueError, match="next_pass: no tables"):
                builder.next_pass({"z": 1})
            builder.next_pass()
    with pytest.raises(ValueError, match=r"finish: no tables \['z'\]"):
        builder.finish({"z": 1})
    with pytest.raises(ValueError, match="finish: num_signed must be integers >= 0, found -1"):
        builder.finish({"b": -1})


def test_num_signed_holds_for_tables_of_any_ids():
    """As for ranked ones: the most frequent so many, of those that reach `min_support`."""
    values = np.array([[7], [7], [7], [-3], [-3], [9], [9], [4]])
    builder = MinHashBuilder({"a": None}, SignatureConfig("rows"), {"a": 2})
    builder.update(values)
    for table in (builder.finish(), builder.finish({"a": 3})):
        assert (table.find("a", torch.tensor([7, -3, 9, 4])) >= 0).tolist() == [
            True, True, False, False,
        ]  # fmt: skip
    assert builder.finish({"a": 1}).section("a").num_signed == 1
    with pytest.raises(LmaError, match="different settings"):
        builder.merge(MinHashBuilder({"a": None}, SignatureConfig("rows")))


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_same_tokens_in_another_type_merge(kind):
    make, config = BUILDERS[kind]
    one, two = (
        make({"b": None}, config, tokens={"b": ids})
        for ids in (np.arange(4, dtype=np.int32), torch.arange(4))
    )
    one.update(np.array([[0], [3]]))
    two.update(np.array([[3]]))
    assert one.merge(two).stats().tables["b"].supports.tolist() == [2, 1]
    if kind == "learned":
        assert one.merge(one.worker()).num_rows == 3


@pytest.mark.parametrize("sample_rows", [None, 3])
def test_rows_that_have_one_number_do_not_merge(sample_rows):
    """Rows 0 and 1 of two builders are four rows of one log."""
    config = SignatureConfig("rows", num_codes=4, sample_rows=sample_rows)
    total = None if sample_rows is None else 4
    rows = np.array([[0, 0], [1, 1]]), np.array([[2, 2], [3, 3]])
    whole, first, second, third = (MinHashBuilder({"a": 4, "b": 4}, config) for _ in range(4))
    whole.update(np.concatenate(rows), total_rows=total)
    first.update(rows[0], total_rows=total)
    second.update(rows[1], total_rows=total)
    third.update(rows[1], first_row=2, total_rows=total)
    with pytest.raises(ValueError, match="give every update its first_row"):
        first.merge(second)
    first.merge(third)
    for name in ("a", "b"):
        assert np.array_equal(first.minima[name], whole.minima[name])
    with pytest.raises(ValueError, match="first_row"):
        first.merge(second)
    empty = MinHashBuilder({"a": 4, "b": 4}, config)
    first.merge(empty)
    assert first.num_rows == 4


def test_builders_of_different_settings_do_not_merge():
    one = MinHashBuilder({"a": 5}, SignatureConfig(seed=1))
    two = MinHashBuilder({"a": 5}, SignatureConfig(seed=2))
    with pytest.raises(LmaError, match=r"settings: seed: 1 and 2$"):
        one.merge(two)


@pytest.mark.parametrize("kind", BUILDERS)
def test_builders_of_another_order_of_tables_do_not_merge(kind):
    """Batches come feature by feature, and so do the rows that learned codes keep."""
    make, config = BUILDERS[kind]
    with pytest.raises(LmaError, match=r"\('a', 5\), \('b', None\).*\('b', None\), \('a', 5\)"):
        make({"a": 5, "b": None}, config).merge(make({"b": None, "a": 5}, config))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"similarity": "row"}, "similarity must be one of"),
        ({"num_codes": 256}, "num_codes"),
        ({"code_bits": 17}, "code_bits"),
        ({"min_support": 0}, "min_support"),
        ({"sample_rows": 0}, "sample_rows"),
    ],
)
def test_config_refuses(change, match):
    with pytest.raises(ValueError, match=match):
        SignatureConfig(**change)


@pytest.mark.parametrize("name", ["num_codes", "code_bits", "min_support", "seed", "sample_rows"])
def test_numbers_are_integers(name):
    with pytest.raises(TypeError, match=rf"SignatureConfig\.{name} must be an integer, found 1.5"):
        SignatureConfig(**{name: 1.5})
    assert getattr(SignatureConfig(**{name: np.int64(3)}), name) == 3


def test_sampling_needs_the_number_of_rows():
    builder = MinHashBuilder({"a": 1}, SignatureConfig("rows", sample_rows=3))
    with pytest.raises(ValueError, match="total_rows"):
        builder.update(np.zeros((1, 1), np.int64))
