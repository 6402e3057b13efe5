"""The linear algebra of context vectors: centring, whitening, principal directions.

All of it works on second moments of `dim` x `dim`, summed over tokens in blocks, so no second copy
of the vectors is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lma.hashing import combine, stream_seeds
from lma.signatures.context_sums import ContextSums, Rows

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
# Sums of tokens, [tokens, dim]: read block by block.
Sums: TypeAlias = F32 | ContextSums

STREAM_SIGN = (1 << 20) + 3  # streams of the hash family for the random signs, 64 per stream
BLOCK = 16_384  # tokens worked on at a time: as float64 of 32 dimensions, 4 MB an array
# Directions whose variance is below this share of the largest are noise of float32 sums.
SMALLEST = 1e-6


def sign_vectors(keys: npt.NDArray[np.uint64], dim: int, seed: int) -> F32:
    """Pseudo-random signs +-1 of every token key, [tokens, dim]: a random projection.

    Their inner products estimate those of the indicator vectors (Achlioptas 2003), and need no
    vocabulary: bit d of a hash of the key is the sign in dimension d.
    """
    out = np.empty((len(keys), dim), np.float32)
    for stream, state in enumerate(stream_seeds(seed, -(-dim // 64), STREAM_SIGN)):
        bits = combine(state, keys)
        for d in range(64 * stream, min(dim, 64 * stream + 64)):
            out[:, d] = 1.0 - 2.0 * ((bits >> np.uint64(d % 64)) & np.uint64(1)).astype(np.float32)
    return out


def mean_context(sums: Sums, rows: Rows) -> F64:
    """Average over log rows of what the tokens of a table meet, [dim]."""
    total = np.sum([sums[b].sum(0, dtype=np.float64) for b in blocks(len(sums))], axis=0)
    if not len(sums):
        return np.zeros(sums.shape[1])
    return np.asarray(total / max(rows.sum(dtype=np.float64), 1.0))


def scaled(sums: F32, rows: Rows, mean: F64, shrinkage: float, power: float) -> F32:
    """(sums - rows * mean) / (rows + shrinkage)^power, [tokens, dim].

    power 1/2 gives rows of the popularity-scaled token x context matrix, power 1 a token's mean
    context, pulled towards the average token's by `shrinkage` rows.
    """
    exact = rows.astype(np.float64)
    scale = (exact + max(shrinkage, 1e-9)) ** -power
    # In place: at a block of tokens such arrays are much of what a builder needs beside its own.
    found = exact[:, None] * mean
    np.subtract(sums, found, out=found)
    found *= scale[:, None]
    return found.astype(np.float32)


def second_moment(
    sums: Sums, rows: Rows, mean: F64, shrinkage: float, power: float, weights: Rows | None = None
) -> F64:
    """Sum over tokens of weight * z z', with z = `scaled`; [dim, dim]."""
    moment = np.zeros((sums.shape[1], sums.shape[1]))
    for block in blocks(len(sums)):
        z = scaled(sums[block], rows[block], mean, shrinkage, power).astype(np.float64)
        moment += z.T @ (z if weights is None else z * weights[block, None])
    return moment


def whitening(moment: F64) -> F64:
    """moment^(-1/2), symmetric, zero in directions without variance: [dim, dim].

    Of all matrices that make the columns of a table's vectors orthonormal it is the one nearest
    to the identity, so the coordinates of different tables keep their common meaning.
    """
    values, directions = np.linalg.eigh(moment)
    kept = values > SMALLEST * max(values[-1], 1e-300)
    inverse = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    return np.asarray((directions * inverse) @ directions.T)


@dataclasses.dataclass(frozen=True)
class Space:
    """How sums of one table become context vectors: vector = scaled(sums) @ directions.

    Attributes:
        mean: Mean context of the table, [dim].
        shrinkage: Rows of the average token mixed into every vector.
        directions: Principal directions, most variance first, each damped by its share of noise,
            [dim, dim].
    """

    mean: F64
    shrinkage: float
    directions: F64

    @classmethod
    def fit(cls, sums: Sums, rows: Rows, shrinkage: float) -> Space:
        """Principal directions of a table's vectors, every token weighted by its rows.

        A direction of variance s is multiplied by Wiener's max(0, 1 - noise / s): the weaker half
        of a projection is mostly noise, among it the labels of the very rows that a token was
        seen in, and its median variance is taken for the noise in all directions. Without it a
        model learns from the codes what it then cannot repeat on new rows (measured in
        `docs/results/signatures.md`). A table of fewer tokens than half the directions has none.
        """
        mean = mean_context(sums, rows)
        moment = second_moment(sums, rows, mean, shrinkage, 1.0, rows)
        values, directions = np.linalg.eigh(moment)
        order = np.argsort(-values, kind="stable")
        values, directions = values[order], directions[:, order]
        # eigh leaves the sign open; make the largest component of each direction positive.
        largest = np.abs(directions).argmax(0)
        directions = directions * np.sign(directions[largest, np.arange(len(largest))])
        real = values > SMALLEST * max(float(values[0]), 1e-300)
        noise = max(0.0, float(np.median(np.where(real, values, 0.0))))
        gain = np.where(real, 1 - noise / np.where(real, values, 1.0), 0.0)
        return cls(mean, shrinkage, directions * np.clip(gain, 0.0, 1.0))

    def vectors(self, sums: Sums, rows: Rows) -> F32:
        """Context vectors, [tokens, dim]."""
        out = np.empty((len(sums), self.directions.shape[1]), np.float32)
        for b in blocks(len(sums)):
            z = scaled(sums[b], rows[b], self.mean, self.shrinkage, 1.0)
            out[b] = z @ self.directions
        return out


def blocks(count: int) -> Iterator[slice]:
    """Slices of at most `BLOCK` tokens."""
    for start in range(0, count, BLOCK):
        yield slice(start, start + BLOCK)


__all__ = [
    "Space",
    "blocks",
    "mean_context",
    "scaled",
    "second_moment",
    "sign_vectors",
    "whitening",
]
