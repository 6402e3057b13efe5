"""From a log to a memory that reads the codes, and to neighbours that a person accepts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import lma
from lma.signatures import (
    ContextCodeBuilder,
    MinHashBuilder,
    SignatureConfig,
    fit_context_codes,
    fit_signatures,
)

CONFIGS = [
    SignatureConfig("context", min_support=1),
    SignatureConfig(kind="learned", num_codes=2, code_bits=4, dim=8, passes=2, min_support=1),
]


class Log:
    """Two one-hot features with dense ids, as `lma.data.Dataset` gives them."""

    def __init__(self, ids, labels, sizes):
        self.ids, self.labels = torch.from_numpy(ids), torch.from_numpy(labels).float()
        features = [lma.data.Feature(name, num_embeddings=size) for name, size in sizes.items()]
        self.schema = lma.data.Schema("toy", (), tuple(features))

    def num_rows(self, split):
        return len(self.labels)

    def batches(self, split, size):
        for first in range(0, len(self.labels), size):
            part = slice(first, first + size)
            yield lma.data.Batch(torch.zeros(0), self.ids[part], None, self.labels[part])


@pytest.fixture
def log():
    import lma.data  # noqa: F401  (lma.data is not imported by lma itself)

    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(0, 40, 2000), rng.integers(0, 20, 2000)], 1)
    return Log(ids, rng.integers(0, 2, 2000), {"user": 40, "movie": 20})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_fit_then_embed(log, config):
    seen = []
    signatures = fit_signatures(log, config, progress=lambda *args: seen.append(args))
    passes = 1 if config.kind == "random" else 3
    assert seen[-1] == (2000 * passes, 2000 * passes, 60)
    tables = [
        lma.EmbeddingBagConfig(name=n, embedding_dim=8, num_embeddings=size, feature_names=[n])
        for n, size in (("user", 40), ("movie", 20))
    ]
    bags = lma.EmbeddingBagCollection(tables, budget="20KB", signatures=signatures)
    bags(log.ids[:64]).sum().backward()
    codes = signatures.codes_of("user", torch.arange(40))
    assert (codes >= 0).all()


@pytest.mark.parametrize(
    ("config", "stages"),
    [
        (CONFIGS[0], ["pass 1 of 1", "codes"]),
        (
            CONFIGS[1],
            ["pass 1 of 3", "directions", "pass 2 of 3", "pass 3 of 3", "codes"],
        ),
    ],
    ids=lambda c: getattr(c, "kind", ""),
)
def test_stages_are_named_as_they_begin(log, config, stages):
    seen = []
    fit_signatures(log, config, stage=seen.append)
    assert seen == stages


def test_fitting_equals_the_builder(log):
    builder = fit_context_codes(log, CONFIGS[1])
    assert isinstance(builder, ContextCodeBuilder)
    assert torch.equal(builder.finish().codes, fit_signatures(log, CONFIGS[1]).codes)
    assert builder.vectors("user").shape == (40, 8)


@pytest.fixture(scope="module")
def movielens():
    root = os.environ.get("LMA_DATA")
    if root is None or not (Path(root) / "ml-1m").exists():
        pytest.skip("needs MovieLens-1M: set LMA_DATA to the folder that holds ml-1m")
    import polars as pl

    folder = Path(root) / "ml-1m"
    ratings, movies = (
        pl.read_parquet(folder / name) for name in ("ratings.parquet", "movies.parquet")
    )
    columns = []
    for name in ("user", "movie"):
        values, inverse, counts = np.unique(
            ratings[name].to_numpy(), return_inverse=True, return_counts=True
        )
        order = np.argsort(-counts, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        columns.append(rank[inverse])
    titles = dict(zip(movies["movie"].to_list(), movies["title"].to_list(), strict=True))
    labels = (ratings["rating"].to_numpy() >= 4).astype(np.int64)
    return np.stack(columns, 1), labels, [titles[v] for v in values[order]]


def test_neighbours_of_toy_story(movielens):
    ids, labels, titles = movielens
    sizes = {"user": int(ids[:, 0].max()) + 1, "movie": len(titles)}
    builder = ContextCodeBuilder(sizes, SignatureConfig("positive_context", kind="learned"))
    for _ in range(builder.num_passes):
        builder.update(ids, None, labels)
        builder.next_pass()
    (wanted,) = [i for i, t in enumerate(titles[:1000]) if t.startswith("Toy Story (")]
    # What `lma inspect` prints: four bytes per movie, decoded.
    coded = [titles[i] for i, _ in builder.finish().neighbours("movie", wanted, 10)]
    assert "Toy Story 2 (1999)" in coded
    assert "Bug's Life, A (1998)" in coded
    vectors = builder.vectors("movie")[:1000]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = [titles[i] for i in np.argsort(-(unit @ unit[wanted]))[1:11]]
    assert "Toy Story 2 (1999)" in near
    assert "Bug's Life, A (1998)" in near


def test_jaccard_of_movies_is_unbiased(movielens):
    """All pairs of 300 movies by user sets: mean error within 5 standard errors."""
    ids, _, titles = movielens
    builder = MinHashBuilder(
        {"user": int(ids[:, 0].max()) + 1, "movie": len(titles)},
        SignatureConfig("context", num_codes=128),
        {"user": 0, "movie": 300},
    )
    builder.update(ids)
    codes = builder.finish({"user": 0, "movie": 300}).codes_of("movie", torch.arange(300)).numpy()
    sets = np.zeros((300, int(ids[:, 0].max()) + 1), np.float32)
    top = ids[:, 1] < 300
    sets[ids[top, 1], ids[top, 0]] = 1
    both, sizes = sets @ sets.T, sets.sum(1)
    upper = np.triu_indices(300, 1)
    psi = (both / (sizes[:, None] + sizes - both))[upper]
    chance = 2.0**-16
    # Pairs share hash functions, so the standard error is taken between codes.
    errors = [
        np.mean(((code[:, None] == code)[upper] - chance) / (1 - chance) - psi) for code in codes.T
    ]
    assert abs(np.mean(errors)) <= 5 * np.std(errors) / np.sqrt(len(errors))
