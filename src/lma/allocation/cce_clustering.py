"""The clustering step of CCE, between epochs (Tsang & Ahle 2023, algorithm 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lma.hashing import mix64_t
from lma.signatures.quantise import kmeans, nearest

if TYPE_CHECKING:
    from lma.allocation.cce import CceAllocation

# Vectors that k-means sees: the authors' figure for each centroid, and a bound of our own, since
# the work grows with the product of vectors and centroids.
SAMPLES_PER_ROW, MOST_SAMPLES = 200, 1 << 17
DISTANCES_AT_ONCE = 1 << 22  # tokens times centroids


class Clustering:
    """Replaces pointers by k-means of what tokens' vectors have become.

    For every column of every clustered table: k-means of a sample of all tokens; every token
    points to its nearest centroid; the cluster rows become the centroids. The helpers get new
    hash functions, and each helper row the mean of what its tokens' vectors are off their
    centroids, so that vectors stay near what they were. (The paper also allows zeros; means of
    the residuals are what the authors' code takes.) What the optimizer remembers of the rows is
    of other vectors; it begins anew.
    """

    def __init__(self, allocation: CceAllocation) -> None:
        self.allocation = allocation

    def start(self) -> None:
        """Nothing to watch."""

    def stop(self) -> None:
        """Nothing was watched."""

    def after_step(self, blocks: Sequence[Tensor]) -> None:
        """Nothing happens within an epoch."""

    def after_epoch(self, epoch: int, blocks: Sequence[Tensor]) -> None:
        """Cluster after the first `cluster_epochs` epochs."""
        if epoch <= self.allocation.cluster_epochs:
            self.cluster(*blocks)

    def tensors(self) -> Mapping[str, Tensor]:
        """None: pointers and seeds say everything."""
        return {}

    def cluster(self, weight: Tensor, *moments: Tensor) -> None:
        """All tables, in place; the same weights and seeds give the same bits."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        # The next functions of each chain, so that the seeds alone say where the run stands.
        seeds = mix64_t(self.allocation.seeds)
        with torch.no_grad(), threadpool_limits(1):
            for number in self.allocation.clustered:
                fresh = self._cluster_table(weight, number, seeds)
                first = int(self.allocation.bases[number])
                weight[first : first + len(fresh)] = fresh.to(weight)
                for moment in moments:
                    moment[first : first + len(fresh)] = 0
        self.allocation.seeds.copy_(seeds)

    def _cluster_table(self, weight: Tensor, number: int, seeds: Tensor) -> Tensor:
        """Write one table's pointers; returns its new rows, float32 [2 * columns * rows, chunk]."""
        allocation = self.allocation
        rows, columns = allocation.rows, allocation.columns
        size = allocation.tables[number].num_embeddings or 0
        numbers = torch.tensor([number], device=weight.device)
        group = allocation.group(number)

        def read(ids: Tensor) -> Tensor:
            """What tokens read so far, column by column: float32 [columns, ids, chunk]."""
            found = allocation.vectors(weight, ids, numbers, group, False).float()
            return found.view(len(ids), columns, -1).transpose(0, 1)

        rng = np.random.default_rng([number, *(int(seed) & 0xFFFFFFFF for seed in seeds)])
        count = min(size, SAMPLES_PER_ROW * rows, MOST_SAMPLES)
        sample = np.sort(rng.choice(size, count, replace=False))
        centroids = np.zeros((columns, rows, allocation.block_size), np.float32)
        for column, part in enumerate(read(torch.from_numpy(sample).to(weight.device))):
            vectors = np.ascontiguousarray(part.cpu())
            found = kmeans(vectors, np.ones(len(vectors)), rows, int(rng.integers(1 << 31)))
            centroids[column, : len(found)] = found

        sums, counts = np.zeros_like(centroids), np.zeros((columns, rows))
        step = 8 * max(1, DISTANCES_AT_ONCE // (8 * rows))
        for start in range(0, size, step):
            ids = torch.arange(start, min(start + step, size))
            parts = read(ids.to(weight.device)).cpu().numpy()
            pairs = zip(parts, centroids, strict=True)
            pointers = np.stack([nearest(part, centres) for part, centres in pairs], 1)
            helpers = allocation.hashed(seeds.cpu(), ids, allocation.salts[number].cpu()).numpy()
            for column, part in enumerate(parts):
                residual = part - centroids[column][pointers[:, column]]
                np.add.at(sums[column], helpers[:, column], residual)
                counts[column] += np.bincount(helpers[:, column], minlength=rows)
            allocation.point(number, ids, pointers)
        means = sums / np.maximum(counts, 1)[..., None]
        fresh = np.concatenate([centroids, means.astype(np.float32)])
        return torch.from_numpy(fresh).flatten(0, 1)
