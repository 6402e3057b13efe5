"""A prepared dataset: a folder of shards, opened and read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lma.data.batch import Batch
from lma.data.encoder import RowEncoder
from lma.data.loader import iterate_batches
from lma.data.order import EpochOrder
from lma.data.prefetch import prefetch
from lma.data.schema import Schema
from lma.data.shards import RowGroup, checksum, map_shard
from lma.data.splits import SPLITS
from lma.data.token_counter import TokenCounter
from lma.errors import FormatError

FORMAT_VERSION: Final = 1
META_FILE: Final = "meta.json"
ENCODER_FOLDER: Final = "encoder"


class Dataset:
    """Rows of a log in three splits, memory-mapped; made by `prepare`, opened by `open`.

    Attributes:
        path: The folder.
        schema: Dense columns and features.
        meta: Everything in `meta.json`: counts, label rates, split, sources, versions.
    """

    def __init__(self, path: Path, schema: Schema, meta: dict[str, Any]) -> None:
        self.path = path
        self.schema = schema
        self.meta = meta
        self._shards: dict[str, list[RowGroup]] = {}
        self._histograms: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files cannot be sent to another process, which maps them itself.
        return {**self.__dict__, "_shards": {}}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Dataset:
        """The dataset in a folder.

        Raises:
            FormatError: There is none, or it is damaged or of another version.
        """
        folder = Path(path)
        try:
            meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FormatError(
                f"{folder}: no prepared dataset here ({META_FILE} is missing); "
                "`lma prepare` makes one"
            ) from None
        except (OSError, ValueError) as error:
            raise FormatError(f"{folder / META_FILE}: cannot be read: {error}") from None
        version = meta.get("format_version") if isinstance(meta, dict) else None
        if version != FORMAT_VERSION:
            raise FormatError(
                f"{folder}: dataset format {version}, this program reads {FORMAT_VERSION}; "
                "prepare the data again"
            )
        dataset = cls(folder, Schema.from_dict(meta["schema"]), meta)
        for split in SPLITS:
            for shard in meta["splits"][split]["shards"]:
                file = folder / shard["file"]
                size = file.stat().st_size if file.exists() else None
                if size != shard["bytes"]:
                    raise FormatError(
                        f"{file}: expected {shard['bytes']:,} bytes, found {size}; "
                        "prepare the data again"
                    )
        return dataset

    def num_rows(self, split: str) -> int:
        """Number of rows of "train", "validation" or "test"."""
        return int(self._split(split)["rows"])

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        start_batch: int = 0,
        drop_last: bool = False,
        max_rows: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        prefetch_batches: int = 2,
    ) -> Iterator[Batch]:
        """The split's rows in batches.

        Unshuffled, rows come in the order of the log. Shuffled, the order is a pure function of
        `seed` and `epoch` (see `lma.data.order`), so a run that resumes with `start_batch` gets
        the batches it would have got.

        Args:
            split: "train", "validation" or "test".
            batch_size: Rows per batch, at least 1.
            shuffle: Whether to shuffle.
            seed: Seed of the shuffle.
            epoch: Number of the epoch.
            start_batch: Number of batches to leave out at the beginning.
            drop_last: Leave out a last batch of fewer rows.
            max_rows: Use only the split's first so many rows (shuffled among themselves).
            rank: Number of this reader among `world_size` ones. Reader r gets batches r,
                r + world_size, ... of the whole epoch: every row once, none twice. With
                `drop_last`, all readers get equally many full batches.
            world_size: Number of readers.
            prefetch_batches: Batches made ahead in a thread; 0 makes no thread.

        Raises:
            ValueError: An argument is out of its range.
            FormatError: A shard is damaged.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}")
        if start_batch < 0:
            raise ValueError(f"start_batch must be >= 0, found {start_batch}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, world_size = {world_size}), found {rank}")
        rows = self.num_rows(split)
        if max_rows is not None:
            if max_rows < 0:
                raise ValueError(f"max_rows must be >= 0, found {max_rows}")
            rows = min(rows, max_rows)
        order = EpochOrder(rows, shuffle=shuffle, seed=seed, epoch=epoch)
        count = -(-rows // batch_size)
        if drop_last:
            count = rows // batch_size // world_size * world_size
        batches = iterate_batches(
            self._groups(split),
            self.schema,
            order,
            batch_size,
            range(start_batch * world_size + rank, count, world_size),
        )
        return prefetch(batches, prefetch_batches)

    def support_histogram(
        self, feature: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """How many tokens of a feature occur how often in the training rows.

        Dictionary ids: the tokens kept by the dictionary. Hashed ids: all tokens, counted by one
        pass over the training shards at the first call.

        Returns:
            Distinct support values, descending, and the number of tokens with each; int64.

        Raises:
            ValueError: There is no such feature.
        """
        if feature not in self._histograms:
            dictionary = self.encoder.dictionary(feature)
            support = self._count_hashed(feature) if dictionary is None else dictionary.support
            values, counts = np.unique(support, return_counts=True)
            self._histograms[feature] = (values[::-1].copy(), counts[::-1].astype(np.int64))
        return self._histograms[feature]

    def num_tokens(self) -> int:
        """Tokens of the training vocabulary over all features, ids for unseen values left out."""
        return sum(
            int(self.support_histogram(feature.name)[1].sum()) for feature in self.schema.features
        )

    @cached_property
    def encoder(self) -> RowEncoder:
        """What turns raw rows into batches like this dataset's."""
        return RowEncoder.load(self.path / ENCODER_FOLDER)

    def titles(self, feature: str) -> list[str] | None:
        """Display names in id order, the last for unseen values; `None` without a dictionary."""
        return self.encoder.titles(feature)

    def _count_hashed(self, feature: str) -> npt.NDArray[np.int64]:
        counter = TokenCounter()
        multi_hot = [f.name for f in self.schema.multi_hot]
        one_hot = [f.name for f in self.schema.one_hot]
        for group in self._groups("train"):
            if feature in multi_hot:
                values = group.bags[multi_hot.index(feature)][0]
            else:
                values = group.ids[:, one_hot.index(feature)]
            counter.update(values.astype(np.int64))
        return counter.finish()[1]

    def _split(self, split: str) -> dict[str, Any]:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, found {split!r}")
        found: dict[str, Any] = self.meta["splits"][split]
        return found

    def _groups(self, split: str) -> list[RowGroup]:
        if split not in self._shards:
            self._shards[split] = [
                group
                for shard in self._split(split)["shards"]
                for group in map_shard(self.path / shard["file"], self.schema)
            ]
        return self._shards[split]


def verify(path: str | os.PathLike[str]) -> Dataset:
    """Open a dataset and compare every file with its checksum in `meta.json`.

    Raises:
        FormatError: A file is missing or damaged; names it.
    """
    dataset = Dataset.open(path)
    expected = {
        shard["file"]: shard["crc32"]
        for split in SPLITS
        for shard in dataset.meta["splits"][split]["shards"]
    }
    expected.update(dataset.meta["encoder"])
    for name, crc in expected.items():
        file = dataset.path / name
        if not file.exists():
            raise FormatError(f"{file}: missing; prepare the data again")
        found = checksum(file)
        if found != crc:
            raise FormatError(
                f"{file}: checksum {found:08x}, expected {crc:08x}; prepare the data again"
            )
    return dataset
