"""The tokens of one feature, ranked by support: raw value -> dense id."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from lma.data.key_index import KeyIndex
from lma.data.token_counter import TokenCounter
from lma.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
UNSEEN = "<unseen>"


@dataclass
class Dictionary:
    """Ids 0 to n - 1 of n tokens, the most frequent first; every other value has id n.

    Equal supports are ordered by the unsigned string hash, so the ranking depends on nothing but
    the training rows.

    Attributes:
        keys: String hashes in id order, uint64 (n,).
        support: Training rows (bags: occurrences) of each token in id order, int64 (n,).
        values: Raw strings in id order, or `None`.
        titles: Display names in id order, or `None`.
    """

    keys: U64
    support: I64
    values: pa.LargeStringArray | None = None
    titles: pa.LargeStringArray | None = None
    _index: KeyIndex | None = field(default=None, repr=False)
    _id_of_position: npt.NDArray[Any] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_embeddings(self) -> int:
        """Number of ids, the one of unseen values included."""
        return len(self.keys) + 1

    @classmethod
    def from_counter(cls, counter: TokenCounter, min_count: int = 1) -> Dictionary:
        """The dictionary of the tokens counted at least `min_count` times."""
        import pyarrow as pa

        keys, counts = counter.finish()
        kept = np.flatnonzero(counts >= min_count)
        # Keys ascend already, so a stable sort by count alone breaks ties by key.
        order = kept[np.argsort(-counts[kept], kind="stable")]
        dictionary = cls(keys[order], counts[order])
        value_keys, strings = counter.read_values()
        if len(value_keys):
            ids = dictionary.ids(value_keys)
            place = np.empty(len(order) + 1, np.int64)
            place[ids] = np.arange(len(ids))
            dictionary.values = strings.take(pa.array(place[:-1]))
        return dictionary

    def ids(self, keys: I64 | U64) -> I64:
        """Dense ids of string hashes, int64 (m,); n where a hash is unknown."""
        if self._index is None or self._id_of_position is None:
            order = np.argsort(self.keys)
            self._index = KeyIndex(self.keys[order])
            small = len(order) < 2**31
            # One more entry, found through position -1: the id of everything unknown.
            self._id_of_position = np.append(order, len(order)).astype(
                np.int32 if small else np.int64
            )
        return np.asarray(self._id_of_position[self._index.find(keys)], np.int64)

    def names(self) -> list[str] | None:
        """Titles, or else raw values, in id order with a last entry for unseen values."""
        shown = self.titles if self.titles is not None else self.values
        if shown is None:
            return None
        return [*cast("list[str]", shown.to_pylist()), UNSEEN]

    def with_titles(self, titles: dict[str, str]) -> Dictionary:
        """The same dictionary with a display name per raw value (the value itself without one)."""
        import pyarrow as pa

        if self.values is not None:
            names = [titles.get(value, value) for value in self.values.to_pylist()]
            self.titles = pa.array(names, pa.large_string())
        return self

    def save(self, path: Path) -> None:
        """Write an Arrow IPC file with the columns key, support and, if there, value and title."""
        import pyarrow as pa

        columns = {
            "key": pa.array(self.keys.view(np.int64)),
            "support": pa.array(self.support),
        }
        if self.values is not None:
            columns["value"] = self.values
        if self.titles is not None:
            columns["title"] = self.titles
        batch = pa.record_batch(columns)
        with pa.ipc.new_file(str(path), batch.schema) as writer:
            writer.write_batch(batch)

    @classmethod
    def load(cls, path: Path) -> Dictionary:
        """The dictionary that `save` wrote.

        Raises:
            FormatError: The file is missing or damaged.
        """
        import pyarrow as pa

        try:
            # Read into memory: a model folder that is moved away must not pull it from under us.
            with pa.OSFile(str(path)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
            return cls(
                batch.column("key").to_numpy().view(np.uint64),
                batch.column("support").to_numpy(),
                batch.column("value") if "value" in batch.schema.names else None,
                batch.column("title") if "title" in batch.schema.names else None,
            )
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise FormatError(f"{path}: not a dictionary of ours: {error}") from None
