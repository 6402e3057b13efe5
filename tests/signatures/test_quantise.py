"""Codebooks: what they lose, and that they repeat."""

from __future__ import annotations

import numpy as np
import pytest

from lma.signatures import SignatureConfig
from lma.signatures import quantise as quantise_module
from lma.signatures.quantise import (
    NEAREST_BLOCK,
    Codebooks,
    nearest,
    second_moments,
    split_dimensions,
)


def vectors(seed=0, count=3000, dim=6):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, dim)) * np.linspace(3, 0.3, dim)).astype(np.float32)


@pytest.mark.parametrize("quantiser", ["product", "residual"])
def test_more_bits_lose_less_and_runs_repeat(quantiser):
    x, weights = vectors(), np.ones(3000)
    lost = []
    for bits in (1, 3, 6):
        books = Codebooks.fit(x, weights, 2, bits, quantiser, 0)
        codes = books.encode(x, threads=3)
        assert codes.min() >= 0
        assert codes.max() < 1 << bits
        lost.append(((x - books.decode(codes)) ** 2).sum() / (x**2).sum())
        again = Codebooks.fit(x, weights, 2, bits, quantiser, 0)
        assert np.array_equal(again.encode(x), codes)
    assert 1 > lost[0] > lost[1] > lost[2] > 0


@pytest.mark.parametrize("quantiser", ["product", "residual"])
def test_codes_are_the_nearest_centroids(quantiser):
    x = vectors(count=200)
    books = Codebooks.fit(x, np.ones(200), 3, 4, quantiser, 0)
    codes = books.encode(x)
    left = x.astype(np.float64)
    for code, (centroids, dims) in enumerate(zip(books.centroids, books.dims, strict=True)):
        distance = ((left[:, None, dims] - centroids) ** 2).sum(-1)
        chosen = distance[np.arange(200), codes[:, code]]
        np.testing.assert_allclose(chosen, distance.min(1), rtol=1e-3, atol=1e-4)
        if books.residual:
            left = left - centroids[codes[:, code]]


def test_few_vectors_are_kept_as_they_are():
    x = vectors(count=5)
    books = Codebooks.fit(x, np.ones(5), 2, 3, "product", 0)
    np.testing.assert_array_equal(books.decode(books.encode(x)), x)


def test_equal_vectors_get_equal_codes():
    x = np.zeros((300, 4), np.float32)
    books = Codebooks.fit(x, np.ones(300), 2, 3, "product", 0)
    assert not books.encode(x).any()


def test_dimensions_are_dealt_out_evenly():
    parts = split_dimensions(np.array([16.0, 8.0, 4.0, 2.0]), 2)
    assert sorted(np.concatenate(parts).tolist()) == [0, 1, 2, 3]
    assert [sorted(part.tolist()) for part in parts] == [[0, 3], [1, 2]]
    assert [len(part) for part in split_dimensions(np.ones(7), 3)] == [3, 2, 2]
    with pytest.raises(ValueError, match="num_codes must be 1 to dim"):
        split_dimensions(np.ones(2), 3)


def test_nearest_of_more_vectors_than_are_compared_at_a_time():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2 * NEAREST_BLOCK + 5, 3)).astype(np.float32)
    centroids = rng.standard_normal((7, 3)).astype(np.float32)
    squares = ((vectors[:, None].astype(np.float64) - centroids) ** 2).sum(2)
    assert np.array_equal(nearest(vectors, centroids), squares.argmin(1))


def test_second_moments_a_few_columns_at_a_time():
    rng = np.random.default_rng(0)
    vectors, weights = rng.standard_normal((50, 19)).astype(np.float32), rng.random(50)
    wanted = weights @ (vectors.astype(np.float64) ** 2) / weights.sum()
    np.testing.assert_allclose(second_moments(vectors, weights), wanted, rtol=1e-6)


def test_codebooks_of_a_sample_are_of_the_vectors(monkeypatch):
    """More vectors than k-means sees, in blocks: all of them are coded as well as the sample."""
    monkeypatch.setattr(quantise_module, "SAMPLE", 500)
    monkeypatch.setattr(quantise_module, "COUNT_BLOCK", 300)
    rng = np.random.default_rng(0)
    kinds = 10 * rng.standard_normal((4, 8)).astype(np.float32)
    vectors = kinds[rng.integers(0, 4, 1000)]
    config = SignatureConfig("context", kind="learned", num_codes=2, code_bits=2, dim=8)
    books, codes, lost = quantise_module.quantise(
        lambda block: (vectors[block], np.ones(len(vectors[block]))), 1000, config
    )
    np.testing.assert_allclose(books.decode(codes), vectors, rtol=1e-5)
    assert lost < 1e-9
