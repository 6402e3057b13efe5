"""Neighbours of MovieLens-1M's movies under every kind of code, by title and by shared genre.

    LMA_DATA=path python benchmarks/signatures/movielens_neighbours.py

Training rows: a seeded 80 % of the ratings, label rating >= 4, two tables (user, movie).
precision@10: share of a movie's ten nearest among the 1,000 most rated that share its genre set's
first genre or more, averaged over the 500 most rated.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse
import scipy.sparse.linalg
import torch

from lma.signatures import ContextCodeBuilder, MinHashBuilder, SignatureConfig, SimHashBuilder

ASKED, AMONG, NEAREST = 500, 1000, 10


def ranked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids by support, and the value of each."""
    names, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[inverse], names[order]


def nearest(similarity: np.ndarray) -> np.ndarray:
    """Numbers of the ten most alike of each row, itself left out; ties by support."""
    similarity = similarity.astype(np.float64).copy()
    similarity[np.arange(len(similarity)), np.arange(len(similarity))] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]


def main() -> None:
    folder = Path(os.environ["LMA_DATA"]) / "ml-1m"
    ratings = pl.read_parquet(folder / "ratings.parquet")
    movies = pl.read_parquet(folder / "movies.parquet")
    train = np.random.default_rng(0).random(len(ratings)) < 0.8
    user, _ = ranked(ratings["user"].to_numpy()[train])
    movie, names = ranked(ratings["movie"].to_numpy()[train])
    labels = (ratings["rating"].to_numpy()[train] >= 4).astype(np.int64)
    ids, sizes = np.stack([user, movie], 1), {"user": user.max() + 1, "movie": len(names)}
    titles = dict(zip(movies["movie"].to_list(), movies["title"].to_list(), strict=True))
    genres = dict(zip(movies["movie"].to_list(), movies["genres"].to_list(), strict=True))
    sets = [set(genres[n].split("|")) for n in names[:AMONG]]
    shared = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets[:ASKED]])

    def report(name: str, similarity: np.ndarray) -> None:
        near = nearest(similarity)
        precision = np.mean([(shared[i, near[i]] > 0).mean() for i in range(ASKED)])
        jaccard = np.mean([shared[i, near[i]].mean() for i in range(ASKED)])
        wanted = [i for i in range(AMONG) if titles[names[i]].startswith("Toy Story (")]
        line = {
            "kind": name,
            "precision_at_10_any_genre": round(float(precision), 4),
            "genre_jaccard_at_10": round(float(jaccard), 4),
            "near_toy_story": [titles[names[j]] for i in wanted for j in near[i][:6]],
        }
        print(json.dumps(line), flush=True)

    seen = np.zeros((AMONG, sizes["user"]), np.float32)
    liked = seen.copy()
    top = movie < AMONG
    seen[movie[top], user[top]] = 1
    liked[movie[top & (labels == 1)], user[top & (labels == 1)]] = 1
    exact = jaccard_of(seen)
    report("exact Jaccard of users", exact)
    report("exact Jaccard of users who liked it", jaccard_of(liked))
    report("random", np.random.default_rng(1).random((AMONG, AMONG)))
    for similarity in ("rows", "context", "labelled_context", "positive_context"):
        for codes, bits in ((8, 16), (64, 16)):
            config = SignatureConfig(similarity, num_codes=codes, code_bits=bits)
            builder = MinHashBuilder(sizes, config)
            builder.update(ids, None, labels)
            found = builder.finish().codes_of("movie", torch.arange(AMONG)).numpy()
            report(f"min-hash {similarity}, {codes} x {bits} bits", agreement(found))
    for similarity in ("context", "positive_context"):
        used = labels >= (similarity == "positive_context")
        config = SignatureConfig(similarity, kind="learned")
        plain = svd_of_contexts(ids[used], list(sizes.values()), config)
        rows = np.bincount(ids[used][:, 1], minlength=len(plain))
        for name, vectors in (("", plain), (", noise taken off", without_noise(plain, rows))):
            unit = vectors[:AMONG]
            unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
            report(f"truncated SVD of {similarity}, rank {config.dim}{name}", unit @ unit.T)
    for similarity in ("context", "labelled_context", "positive_context"):
        config = SignatureConfig(similarity, kind="learned")
        learned = ContextCodeBuilder(sizes, config)
        for _ in range(learned.num_passes):
            learned.update(ids, None, labels)
            learned.next_pass()
        vectors = learned.vectors("movie")[:AMONG]
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        report(f"context vectors {similarity}, cosine", unit @ unit.T)
        for quantiser in ("product", "residual"):
            learned.config = dataclasses.replace(config, quantiser=quantiser)
            found = learned.finish().codes_of("movie", torch.arange(AMONG)).numpy()
            kind = f"learned {similarity}, {quantiser} codes, 4 x 8 bits"
            report(f"{kind}, equal codes", agreement(found))
            decoded = learned._codebooks["movie"].decode(found)
            unit = decoded / np.maximum(np.linalg.norm(decoded, axis=1, keepdims=True), 1e-12)
            report(f"{kind}, decoded cosine", unit @ unit.T)
        for codes, bits in ((8, 16), (64, 4)):
            simhash = SimHashBuilder(
                ["movie"], dim=vectors.shape[1], num_codes=codes, code_bits=bits
            )
            simhash.update("movie", np.arange(AMONG), vectors)
            found = simhash.finish().codes_of("movie", torch.arange(AMONG)).numpy()
            report(f"SimHash of these vectors, {codes} x {bits} bits", agreement(found))


def svd_of_contexts(ids: np.ndarray, sizes: list[int], config: SignatureConfig) -> np.ndarray:
    """Movies' vectors from the popularity-scaled matrix of users and movies itself.

    D^-1/2 V S of X = D^-1/2 (M - popularity) D^-1/2, D = rows + shrinkage, M = who met whom, as
    `lma.signatures.context` has them.
    """
    rows = [np.bincount(column, minlength=n) for column, n in zip(ids.T, sizes, strict=True)]
    scale = [(r + config.shrinkage) ** -0.5 for r in rows]
    met = scipy.sparse.csr_matrix((np.ones(len(ids)), tuple(ids.T)), sizes).toarray()
    met -= np.outer(rows[0], rows[1] / max(len(ids), 1))
    matrix = scale[0][:, None] * met * scale[1]
    _, s, v = scipy.sparse.linalg.svds(matrix, config.dim, random_state=0)
    return v.T * s * scale[1][:, None]


def without_noise(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Every principal direction times 1 - noise / variance, as `Space.fit` damps them."""
    values, directions = np.linalg.eigh((vectors * rows[:, None]).T @ vectors / rows.sum())
    return vectors @ directions * np.clip(1 - np.median(values) / values, 0, 1)


def jaccard_of(sets: np.ndarray) -> np.ndarray:
    both = sets @ sets.T
    sizes = sets.sum(1)
    return both / np.maximum(sizes[:, None] + sizes - both, 1)


def agreement(codes: np.ndarray) -> np.ndarray:
    """Share of equal codes of all pairs."""
    total = np.zeros((len(codes), len(codes)))
    for code in codes.T:
        total += code[:, None] == code
    return total / codes.shape[1]


if __name__ == "__main__":
    main()
