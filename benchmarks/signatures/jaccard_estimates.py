"""Error of Jaccard similarities estimated by min-hash, against exact ones and against theory.

    LMA_DATA=path python benchmarks/signatures/jaccard_estimates.py

All pairs of MovieLens-1M's 500 most rated movies by their sets of users; then pairs of large
disjoint sets, of which 32-bit hashes make some minima equal by chance: about n / 2^33 of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import torch

from lma.signatures import MinHashBuilder, SignatureConfig

MOVIES, CODES, BITS, SEEDS = 500, 128, 16, 5
DISJOINT_CODES, DISJOINT_SEEDS = 248, 20


def ranks(values: np.ndarray) -> np.ndarray:
    """Each value's rank by frequency."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[inverse]


def movies_by_users() -> None:
    """One line: mean error with its standard error between hash functions, and RMSE.

    Pairs share their hash functions, so their errors are not independent; codes are.
    """
    ratings = pl.read_parquet(Path(os.environ["LMA_DATA"]) / "ml-1m" / "ratings.parquet")
    ids = np.stack([ranks(ratings["user"].to_numpy()), ranks(ratings["movie"].to_numpy())], 1)
    sizes = {"user": int(ids[:, 0].max()) + 1, "movie": int(ids[:, 1].max()) + 1}
    sets = np.zeros((MOVIES, sizes["user"]), np.float32)
    top = ids[ids[:, 1] < MOVIES]
    sets[top[:, 1], top[:, 0]] = 1
    both, upper = sets @ sets.T, np.triu_indices(MOVIES, 1)
    each = sets.sum(1)
    psi = (both / (each[:, None] + each - both))[upper]
    chance = 2.0**-BITS
    errors, squares = [], []
    for seed in range(SEEDS):
        builder = MinHashBuilder(sizes, SignatureConfig("context", CODES, BITS, seed=seed))
        builder.update(ids)
        codes = builder.finish().codes_of("movie", torch.arange(MOVIES)).numpy()
        share = np.zeros(len(psi))
        for code in codes.T:
            equal = (code[:, None] == code)[upper]
            errors.append(np.mean((equal - chance) / (1 - chance) - psi))
            share += equal / CODES
        squares.append(np.mean(((share - chance) / (1 - chance) - psi) ** 2))
    p = psi + (1 - psi) * chance
    rmse = np.sqrt(np.mean(squares))
    theory = np.sqrt(np.mean(p * (1 - p) / CODES)) / (1 - chance)
    found = {
        "pairs": len(psi),
        "codes": CODES,
        "seeds": SEEDS,
        "mean_error": round(float(np.mean(errors)), 6),
        "standard_error": round(float(np.std(errors) / np.sqrt(len(errors))), 6),
        "rmse": round(float(rmse), 6),
        "rmse_of_theory": round(float(theory), 6),
        "rmse_over_theory": round(float(rmse / theory), 4),
    }
    print(json.dumps({"kind": "MovieLens-1M, movies by users", **found}), flush=True)


def disjoint_sets(size: int) -> None:
    """One line: share of minima of two disjoint sets of `size` rows that are equal."""
    equal = 0
    for seed in range(DISJOINT_SEEDS):
        builder = MinHashBuilder({"a": 2}, SignatureConfig("rows", DISJOINT_CODES, seed=seed))
        for token in (0, 1):
            for first in range(0, size, 1_000_000):
                batch = np.full((min(1_000_000, size - first), 1), token)
                builder.update(batch, first_row=token * size + first)
        one, two = builder.minima["a"]
        equal += int((one == two).sum())
    trials = DISJOINT_CODES * DISJOINT_SEEDS
    found = {
        "kind": "disjoint sets",
        "size": size,
        "minima": trials,
        "equal": equal,
        "equal_of_theory": round(trials * size / 2**33, 2),
    }
    print(json.dumps(found), flush=True)


def main() -> None:
    movies_by_users()
    for size in (1_000_000, 10_000_000):
        disjoint_sets(size)


if __name__ == "__main__":
    main()
