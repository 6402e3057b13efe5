"""How much of MovieLens-1M's labels context vectors explain, beside a truncated SVD.

    LMA_DATA=path python benchmarks/signatures/movielens_vectors.py

Vectors come from a seeded 80 % of the ratings. With the users' vectors held fixed, every movie
gets weights by ridge regression of the training residuals (label less both sides' means) on them,
and the other way round; the AUC on the next 10 % of the ratings says what the vectors are worth.
Means alone are the floor; a truncated SVD of the residuals' popularity-scaled matrix is what the
projections approximate. "coded" are the vectors that 4 codes of 8 bits stand for.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse
import scipy.sparse.linalg
import torch
from sklearn.metrics import roc_auc_score

from lma.signatures import ContextCodeBuilder, SignatureConfig

RIDGE = 40.0
SHRINKAGE = 50.0


def load() -> tuple[np.ndarray, np.ndarray, int, int]:
    """Ids by support [rows, 2], labels, rows for training, rows up to the end of validation."""
    ratings = pl.read_parquet(Path(os.environ["LMA_DATA"]) / "ml-1m" / "ratings.parquet")
    order = np.random.default_rng(0).permutation(len(ratings))
    train = int(0.8 * len(order))
    columns = []
    for name in ("user", "movie"):
        _, inverse = np.unique(ratings[name].to_numpy()[order], return_inverse=True)
        counts = np.bincount(inverse[:train], minlength=inverse.max() + 1)
        rank = np.empty(len(counts), np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        columns.append(rank[inverse])
    labels = (ratings["rating"].to_numpy()[order] >= 4).astype(np.float64)
    return np.stack(columns, 1), labels, train, int(0.9 * len(order))


class Judge:
    """AUC on validation rows of residuals regressed on given vectors."""

    def __init__(self, ids: np.ndarray, labels: np.ndarray, train: int, end: int) -> None:
        self.ids, self.labels, self.train, self.end = ids, labels, train, end
        self.sizes = ids.max(0) + 1
        mean, seen = labels[:train].mean(), ids[:train]
        offset = [np.zeros(size) for size in self.sizes]
        for _ in range(5):
            for side in (1, 0):
                left = labels[:train] - mean - offset[1 - side][seen[:, 1 - side]]
                count = np.bincount(seen[:, side], minlength=self.sizes[side])
                offset[side] = np.bincount(seen[:, side], left, self.sizes[side]) / (count + 10)
        self.base = mean + offset[0][ids[:, 0]] + offset[1][ids[:, 1]]
        self.support = [np.bincount(seen[:, s], minlength=self.sizes[s]) for s in (0, 1)]

    def auc(self, scores: np.ndarray) -> float:
        """AUC of scores of the validation rows."""
        return round(float(roc_auc_score(self.labels[self.train : self.end], scores)), 4)

    def of_vectors(self, vectors: np.ndarray, side: int) -> float:
        """`vectors` of side 0 (users) or 1 (movies)."""
        weights = self.support[side]
        energy = (weights[:, None] * vectors**2).sum() / weights.sum()
        x = vectors / np.sqrt(energy + 1e-12) * np.sqrt(vectors.shape[1])
        other = self.ids[: self.train, 1 - side]
        order = np.argsort(other, kind="stable")
        z = x[self.ids[: self.train, side][order]]
        t = (self.labels - self.base)[: self.train][order]
        bounds = np.searchsorted(other[order], np.arange(self.sizes[1 - side] + 1))
        beta = np.zeros((self.sizes[1 - side], x.shape[1]))
        for k, (a, b) in enumerate(itertools.pairwise(bounds)):
            part = z[a:b]
            beta[k] = np.linalg.solve(part.T @ part + RIDGE * np.eye(x.shape[1]), part.T @ t[a:b])
        held = slice(self.train, self.end)
        rows = self.ids[held]
        return self.auc(self.base[held] + (x[rows[:, side]] * beta[rows[:, 1 - side]]).sum(1))

    def line(self, name: str, users: np.ndarray, movies: np.ndarray) -> None:
        """Print both sides' AUC."""
        found = {"vectors": name, "users": self.of_vectors(users, 0)}
        print(json.dumps({**found, "movies": self.of_vectors(movies, 1)}), flush=True)


def main() -> None:
    ids, labels, train, end = load()
    judge = Judge(ids, labels, train, end)
    print(json.dumps({"vectors": "none: means alone", "auc": judge.auc(judge.base[train:end])}))
    names = ("user", "movie")
    sizes = dict(zip(names, judge.sizes.tolist(), strict=True))
    for similarity, passes in (
        ("context", 4), ("positive_context", 2), ("positive_context", 4),
        ("labelled_context", 1), ("labelled_context", 2), ("labelled_context", 4),
    ):  # fmt: skip
        config = SignatureConfig(similarity, kind="learned", passes=passes, shrinkage=SHRINKAGE)
        builder = ContextCodeBuilder(sizes, config)
        for _ in range(builder.num_passes):
            builder.update(ids[:train], None, labels[:train])
            builder.next_pass()
        vectors = [builder.vectors(n)[: sizes[n]] for n in names]
        judge.line(f"{similarity}, {passes} passes", *vectors)
        table = builder.finish()
        coded = []
        for name, own in zip(names, vectors, strict=True):
            codes = table.codes_of(name, torch.arange(table.section(name).num_signed)).numpy()
            decoded = np.zeros_like(own)
            decoded[: len(codes)] = builder._codebooks[name].decode(codes)
            coded.append(decoded)
        judge.line(f"{similarity}, {passes} passes, coded", *coded)
    seen, mean = ids[:train], labels[:train].mean()
    own = [
        (np.bincount(seen[:, s], labels[:train], judge.sizes[s]) - judge.support[s] * mean)
        / (judge.support[s] + SHRINKAGE)
        for s in (0, 1)
    ]
    residual = labels[:train] - mean - own[0][seen[:, 0]] - own[1][seen[:, 1]]
    scale = [(judge.support[s] + SHRINKAGE) ** -0.5 for s in (0, 1)]
    matrix = scipy.sparse.csr_matrix((residual, (seen[:, 0], seen[:, 1])), judge.sizes)
    matrix = scipy.sparse.diags(scale[0]) @ matrix @ scipy.sparse.diags(scale[1])
    for rank in (16, 32):
        u, s, vt = scipy.sparse.linalg.svds(matrix, rank, random_state=0)
        judge.line(f"SVD of residuals, rank {rank}", u * s * scale[0][:, None],
                   vt.T * s * scale[1][:, None])  # fmt: skip


if __name__ == "__main__":
    main()
