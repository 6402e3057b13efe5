"""Vectors to codes: product or residual quantisation, k-means by scikit-learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from lma.signatures.config import SignatureConfig

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SAMPLE = 65_536  # vectors that k-means sees; more change the centroids by less than its start does
ITERATIONS = 25
BLOCK = 8192  # vectors encoded at a time
NEAREST_BLOCK = 2048  # vectors held against 256 centroids at a time: 2 MB, which stay in cache
MOST_SEED = (1 << 32) - 1  # scikit-learn takes no larger ones; our hashes take any integer
COUNT_BLOCK = 1 << 14  # vectors made at a time; there are five arrays of as many meanwhile


@dataclasses.dataclass(frozen=True)
class Codebooks:
    """Centroids of every code.

    Attributes:
        centroids: One array [2^code_bits or fewer, dims of the code] per code.
        dims: Dimensions of a vector that each code reads; all of them for residual codes.
        residual: Whether a code quantises what the ones before it left over.
    """

    centroids: tuple[F32, ...]
    dims: tuple[I64, ...]
    residual: bool

    @classmethod
    def fit(
        cls,
        vectors: F32,
        weights: F64,
        num_codes: int,
        code_bits: int,
        quantiser: str,
        seed: int,
    ) -> Codebooks:
        """K-means for every code.

        Product codes (Jégou et al. 2011) split the dimensions so that every code gets the same
        product of variances, the optimum for a Gaussian (Ge et al. 2013, section 3.2); residual
        codes (Chen et al. 2010) read all dimensions, one after the other.

        Args:
            vectors: [tokens, dim], columns uncorrelated (principal components).
            weights: Of the tokens, [tokens].
            num_codes, code_bits: Codes per vector, bits per code.
            quantiser: "product" or "residual".
            seed: Of the starts.

        The same vectors and seed give the same bits: k-means runs on one thread.
        """
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        dim, residual = vectors.shape[1], quantiser == "residual"
        if residual:
            dims = [np.arange(dim)] * num_codes
        else:
            dims = split_dimensions(second_moments(vectors, weights), num_codes)
        centroids = []
        left = vectors.copy() if residual else vectors
        with threadpool_limits(1):
            for code in range(num_codes):
                part = np.ascontiguousarray(left[:, dims[code]])
                centroids.append(kmeans(part, weights, 1 << code_bits, seed + code))
                if residual:
                    left -= centroids[-1][nearest(part, centroids[-1])]
        return cls(tuple(centroids), tuple(dims), residual)

    def encode(self, vectors: F32, threads: int = 1) -> I64:
        """Codes of vectors, int64 [tokens, num_codes]; blocks are independent of each other."""
        out = np.empty((len(vectors), len(self.centroids)), np.int64)

        def run(start: int) -> None:
            block = vectors[start : start + BLOCK].astype(np.float32)
            for code, (centroids, dims) in enumerate(zip(self.centroids, self.dims, strict=True)):
                found = nearest(np.ascontiguousarray(block[:, dims]), centroids)
                out[start : start + BLOCK, code] = found
                if self.residual:
                    block -= centroids[found]

        from threadpoolctl import threadpool_limits

        with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, range(0, len(vectors), BLOCK)))
        return out

    def decode(self, codes: npt.NDArray[np.integer]) -> F32:
        """The vectors that codes stand for, [tokens, dim]."""
        dim = max(int(d.max()) for d in self.dims) + 1
        out = np.zeros((len(codes), dim), np.float32)
        for code, (centroids, dims) in enumerate(zip(self.centroids, self.dims, strict=True)):
            out[:, dims] += centroids[codes[:, code]]
        return out


def second_moments(vectors: F32, weights: F64) -> F64:
    """Weighted mean of the squares of every column, a few columns at a time: [dim]."""
    parts = [
        np.average(vectors[:, d : d + 8] ** 2, axis=0, weights=weights)
        for d in range(0, vectors.shape[1], 8)
    ]
    return np.concatenate(parts)


def split_dimensions(variances: npt.NDArray[np.floating], parts: int) -> list[I64]:
    """Deal dimensions out so that the parts' products of variances are as equal as may be.

    Largest variance first, each to the part with the smallest product so far that has room.
    """
    dim = len(variances)
    if not 1 <= parts <= dim:
        raise ValueError(f"product codes: num_codes must be 1 to dim = {dim}, found {parts}")
    room = [dim // parts + (part < dim % parts) for part in range(parts)]
    logs = np.log(np.maximum(variances, variances.max(initial=0) * 1e-9 + 1e-30))
    # Relative to the smallest, so that every dimension adds to its part.
    logs = logs - logs.min() + 1e-3
    dealt: list[list[int]] = [[] for _ in range(parts)]
    products = np.zeros(parts)
    for d in np.argsort(-logs, kind="stable"):
        open_parts = [part for part in range(parts) if len(dealt[part]) < room[part]]
        part = min(open_parts, key=lambda p: products[p])
        dealt[part].append(int(d))
        products[part] += logs[d]
    return [np.array(sorted(dims)) for dims in dealt]


def kmeans(vectors: F32, weights: F64, count: int, seed: int) -> F32:
    """At most `count` centroids of vectors [n, dim]; fewer only where fewer vectors differ."""
    from sklearn.cluster import KMeans

    distinct = np.unique(vectors, axis=0)
    if len(distinct) <= count:
        return distinct
    model = KMeans(
        count, n_init=1, max_iter=ITERATIONS, random_state=seed & MOST_SEED, algorithm="lloyd"
    )
    model.fit(vectors, sample_weight=weights)
    return np.asarray(model.cluster_centers_, dtype=np.float32)


def nearest(vectors: F32, centroids: F32) -> I64:
    """Number of the nearest centroid: argmin of |c|^2 - 2 x.c."""
    lengths = np.einsum("cd,cd->c", centroids, centroids)
    out = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), NEAREST_BLOCK):
        block = slice(start, start + NEAREST_BLOCK)
        found = vectors[block] @ centroids.T
        found *= 2
        out[block] = np.subtract(lengths, found, out=found).argmin(1)
    return out


def quantise(
    vectors: Callable[[slice], tuple[F32, F64]], count: int, config: SignatureConfig
) -> tuple[Codebooks, npt.NDArray[np.uint8] | npt.NDArray[np.uint16], float]:
    """Codes of many vectors that are made block by block, never all at once.

    Args:
        vectors: vectors(block) gives the vectors [block, dim] and weights [block] of a slice.
        count: How many there are.
        config: How many codes of how many bits, which quantiser, which seed.

    Returns:
        Codebooks, fitted on a sample; codes, uint8 or uint16 [count, num_codes]; weighted share
        of the vectors' energy that the codes lose, 0 to 1.
    """
    blocks = [slice(a, min(a + COUNT_BLOCK, count)) for a in range(0, count, COUNT_BLOCK)]
    books = _fit_sample(vectors, blocks, config)
    codes = np.empty((count, config.num_codes), np.uint8 if config.code_bits <= 8 else np.uint16)
    lost = energy = 0.0
    for block in blocks:
        found, weights = vectors(block)
        codes[block] = books.encode(found, torch.get_num_threads())
        left = np.subtract(found, books.decode(codes[block]))
        lost += float(weights @ (left**2).sum(1))
        energy += float(weights @ (found**2).sum(1))
    return books, codes, lost / max(energy, 1e-30)


def _fit_sample(
    vectors: Callable[[slice], tuple[F32, F64]], blocks: list[slice], config: SignatureConfig
) -> Codebooks:
    """Codebooks of at most `SAMPLE` of the vectors."""
    count = blocks[-1].stop
    if count > SAMPLE:
        rng = np.random.default_rng(config.seed & MOST_SEED)
        # Unshuffled, so that no array of all tokens is made of them where they are many.
        drawn = np.sort(rng.choice(count, SAMPLE, replace=False, shuffle=False))
    else:
        drawn = np.arange(count)
    sample, weights = np.empty((len(drawn), config.dim), np.float32), np.empty(len(drawn))
    for block in blocks:
        into = slice(*np.searchsorted(drawn, (block.start, block.stop)))
        found, weight = vectors(block)
        sample[into] = found[drawn[into] - block.start]
        weights[into] = weight[drawn[into] - block.start]
    return Codebooks.fit(
        sample, weights, config.num_codes, config.code_bits, config.quantiser, config.seed
    )


__all__ = ["Codebooks", "kmeans", "nearest", "quantise", "split_dimensions"]
