"""A split as a torch `IterableDataset`, for use with `torch.utils.data.DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import IterableDataset, get_worker_info

from lma.data.batch import Batch
from lma.data.dataset import Dataset


class BatchStream(IterableDataset[Batch]):
    """The batches of one epoch, shared out among a DataLoader's workers.

    With `DataLoader(stream, batch_size=None, num_workers=k)` the batches come in the same order
    for every k. The last, smaller batch of an epoch is kept.

    Args:
        dataset: A prepared dataset.
        split: "train", "validation" or "test".
        batch_size: Rows per batch.
        shuffle: Whether to shuffle.
        seed: Seed of the shuffle.
        epoch: Number of the epoch; set the attribute before the next one.
        rank: Number of this process among `world_size` ones.
        world_size: Number of processes, each with its own workers.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset, self.split, self.batch_size = dataset, split, batch_size
        self.shuffle, self.seed, self.epoch = shuffle, seed, epoch
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self.dataset.batches(
            self.split,
            self.batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            epoch=self.epoch,
            # Worker w of rank r takes every (world_size * workers)-th batch; the loader asks its
            # workers in turn, which restores the order.
            rank=self.rank + number * self.world_size,
            world_size=self.world_size * count,
            prefetch_batches=0 if worker is not None else 2,
        )
