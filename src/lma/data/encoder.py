"""Raw rows to batches: the dictionaries and the transformation of numbers that training used."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from lma.data.batch import Batch
from lma.data.column_hash import HashedRows, hash_rows
from lma.data.dense import dense_names
from lma.data.dictionary import Dictionary
from lma.data.raw import LABEL, WEIGHT, RawSchema
from lma.data.schema import Feature, Schema
from lma.errors import DataError, FormatError
from lma.hashing import HASH_VERSION

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

I64 = npt.NDArray[np.int64]
ENCODER_VERSION: Final = 1
_FILE: Final = "encoder.json"


class RowEncoder:
    """Turns raw columns into the tensors that training saw.

    Args:
        raw_schema: The raw columns.
        dictionaries: One per feature, in order; `None` where ids are string hashes.
    """

    def __init__(
        self, raw_schema: RawSchema, dictionaries: Sequence[Dictionary] | None = None
    ) -> None:
        self.raw_schema = raw_schema
        self.dictionaries = None if dictionaries is None else tuple(dictionaries)
        sizes: list[int | None] = [None] * len(raw_schema.features)
        if self.dictionaries is not None:
            sizes = [dictionary.num_embeddings for dictionary in self.dictionaries]
        self.schema = Schema(
            name=raw_schema.name,
            dense=dense_names(raw_schema.dense),
            features=tuple(
                Feature(feature.name, feature.multi_hot, size)
                for feature, size in zip(raw_schema.features, sizes, strict=True)
            ),
            description=raw_schema.description,
            weighted=raw_schema.weighted,
        )

    def encode(self, frame: pl.DataFrame) -> Batch:
        """The batch of some raw rows.

        Args:
            frame: Raw columns under their raw names: numbers for dense columns (null = missing),
                strings or integers for one-hot features (null = the empty value), lists of them
                for multi-hot features, 0/1 in `label`. Other columns are ignored; `label` may be
                absent, the labels are NaN then.

        Raises:
            DataError: A column is missing or of an unusable type.
        """
        rows = self.to_ids(hash_rows(frame_to_arrow(frame, self.raw_schema), self.raw_schema))
        return make_batch(self.schema, rows)

    def to_ids(self, rows: HashedRows, run: Callable[..., Iterable[I64]] = map) -> HashedRows:
        """The same rows with dictionary ids in place of string hashes, where there are any.

        Args:
            rows: Rows of hashes.
            run: `map`, or a thread pool's: features are independent.
        """
        if self.dictionaries is None:
            return rows
        pairs = list(zip(self.dictionaries, self.schema.features, strict=True))
        one_hot = [d.ids for d, feature in pairs if not feature.multi_hot]
        multi_hot = [d.ids for d, feature in pairs if feature.multi_hot]
        return HashedRows(
            list(run(_call, one_hot, rows.one_hot)),
            [
                (find(values), lengths)
                for find, (values, lengths) in zip(multi_hot, rows.bags, strict=True)
            ],
            rows.dense,
            rows.labels,
            rows.weights,
        )

    def dictionary(self, feature: str) -> Dictionary | None:
        """The dictionary of a feature, `None` where ids are hashes.

        Raises:
            ValueError: There is no such feature.
        """
        names = [f.name for f in self.schema.features]
        if feature not in names:
            raise ValueError(f"no feature {feature!r}{_nearest(feature, names)}")
        return None if self.dictionaries is None else self.dictionaries[names.index(feature)]

    def titles(self, feature: str) -> list[str] | None:
        """Display names in id order (the last for unseen values), `None` without a dictionary."""
        dictionary = self.dictionary(feature)
        return None if dictionary is None else dictionary.names()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `encoder.json` and one Arrow file per dictionary into a folder."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for number, dictionary in enumerate(self.dictionaries or ()):
            dictionary.save(folder / _dictionary_file(number))
        data = {
            "encoder_version": ENCODER_VERSION,
            "hash_version": HASH_VERSION,
            "raw_schema": self.raw_schema.to_dict(),
            "ids": "hashed" if self.dictionaries is None else "dictionary",
        }
        (folder / _FILE).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> RowEncoder:
        """The encoder that `save` wrote.

        Raises:
            FormatError: Files are missing, damaged or of another version.
        """
        path = Path(directory) / _FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            versions = data["encoder_version"], data["hash_version"]
            raw_schema = RawSchema.from_dict(data["raw_schema"])
            hashed = data["ids"] == "hashed"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path}: not an encoder of ours: {error}") from None
        if versions != (ENCODER_VERSION, HASH_VERSION):
            raise FormatError(
                f"{path}: encoder and hash versions are {versions}, this program reads "
                f"{(ENCODER_VERSION, HASH_VERSION)}; prepare the data again"
            )
        if hashed:
            return cls(raw_schema)
        count = len(raw_schema.features)
        return cls(
            raw_schema,
            [Dictionary.load(Path(directory) / _dictionary_file(n)) for n in range(count)],
        )


def _call(find: Callable[[I64], I64], keys: I64) -> I64:
    return find(keys)


def make_batch(schema: Schema, rows: HashedRows) -> Batch:
    """Columns of ids as a batch in the layout that `Batch` describes."""
    dense, labels = torch.from_numpy(rows.dense), torch.from_numpy(rows.labels)
    weights = None if rows.weights is None else torch.from_numpy(rows.weights)
    if not schema.multi_hot:
        values = np.empty((len(rows), len(schema.features)), np.int64)
        for f, ids in enumerate(rows.one_hot):
            values[:, f] = ids
        return Batch(dense, torch.from_numpy(values), None, labels, weights)
    one_hot, bags = iter(rows.one_hot), iter(rows.bags)
    ones = np.ones(len(rows), np.int64)
    parts = [next(bags) if f.multi_hot else (next(one_hot), ones) for f in schema.features]
    offsets = np.zeros(len(parts) * len(rows) + 1, np.int64)
    np.cumsum(np.concatenate([lengths for _, lengths in parts]), out=offsets[1:])
    flat = np.concatenate([ids for ids, _ in parts])
    return Batch(dense, torch.from_numpy(flat), torch.from_numpy(offsets), labels, weights)


def frame_to_arrow(frame: pl.DataFrame, schema: RawSchema) -> pa.Table:
    """A polars frame as the raw table of `lma.data.raw`, extra columns left out.

    Raises:
        DataError: A column is missing or of an unusable type.
    """
    import polars as pl
    import pyarrow as pa

    columns: dict[str, Any] = {}

    def take(name: str) -> pl.Series:
        if name not in frame.columns:
            raise DataError(f"column {name!r} is missing{_nearest(name, frame.columns)}")
        return frame[name]

    def convert(name: str, wanted: str, dtype: pl.DataType, allowed: bool) -> pa.Array:
        series = take(name)
        if not allowed and series.dtype != pl.Null:
            raise DataError(f"column {name!r}: expected {wanted}, found {series.dtype}")
        try:
            cast = series.cast(dtype)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"column {name!r}: expected {wanted}: {error}") from None
        return cast.to_arrow(compat_level=pl.CompatLevel.oldest())

    if LABEL in frame.columns:
        dtype = frame[LABEL].dtype
        numeric = dtype.is_numeric() or dtype == pl.Boolean
        columns[LABEL] = convert(LABEL, "0 or 1", pl.Float32(), numeric)
    if schema.weighted:
        # Prediction needs no weights.
        weights = (
            frame[WEIGHT]
            if WEIGHT in frame.columns
            else pl.Series([1.0]).new_from_index(0, len(frame))
        )
        columns[WEIGHT] = weights.cast(pl.Float32).to_arrow()
    for column in schema.dense:
        dtype = take(column.name).dtype
        columns[column.name] = convert(
            column.name, "numbers", pl.Float64(), dtype.is_numeric() or dtype == pl.Boolean
        )
    for feature in schema.features:
        dtype = take(feature.name).dtype
        if feature.multi_hot:
            inner = dtype.inner if isinstance(dtype, pl.List) else None
            allowed = inner is not None and _is_token(inner)
            columns[feature.name] = convert(
                feature.name, "lists of strings or integers", pl.List(pl.String), allowed
            )
        else:
            columns[feature.name] = convert(
                feature.name, "strings or integers", pl.String(), _is_token(dtype)
            )
    return pa.table(columns)


def _is_token(dtype: Any) -> bool:
    import polars as pl

    return bool(
        dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null)
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; the nearest is {close[0]!r}"
    return f"; there are {', '.join(known)}"


def _dictionary_file(number: int) -> str:
    return f"dictionary-{number:03d}.arrow"
