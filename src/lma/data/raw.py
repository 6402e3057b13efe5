"""Raw rows between a log's reader and the encoder: one table shape for all formats.

A reader turns its files into chunks, Arrow tables with these columns:

    label       float32 or absent       0 or 1
    weight      float32 or absent       finite, >= 0: how much the row counts
    dense       float64, nullable       a missing number is null
    one-hot     large_string, nullable  a missing value is the empty string
    multi-hot   large_list<large_string>, nullable
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

    from lma.data.bad_rows import BadRows
    from lma.data.column_hash import HashedRows
    from lma.data.splits import Split

LABEL = "label"
WEIGHT = "weight"


@dataclass(frozen=True)
class DenseColumn:
    """A raw number and how it becomes floats; see `lma.data.dense`."""

    name: str
    transform: str = "log1p"


@dataclass(frozen=True)
class RawFeature:
    """A raw categorical column: one string per row, or a list of them."""

    name: str
    multi_hot: bool = False


@dataclass(frozen=True)
class RawSchema:
    """The raw columns of a log, beside its `label`."""

    name: str
    dense: tuple[DenseColumn, ...]
    features: tuple[RawFeature, ...]
    description: str = ""
    weighted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON values."""
        return {
            "name": self.name,
            "description": self.description,
            "weighted": self.weighted,
            "dense": [{"name": c.name, "transform": c.transform} for c in self.dense],
            "features": [{"name": f.name, "multi_hot": f.multi_hot} for f in self.features],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RawSchema:
        """The schema that `to_dict` wrote."""
        return cls(
            name=data["name"],
            dense=tuple(DenseColumn(**column) for column in data["dense"]),
            features=tuple(RawFeature(**feature) for feature in data["features"]),
            description=data["description"],
            weighted=data["weighted"],
        )


@dataclass(frozen=True)
class RawChunk:
    """Some consecutive rows of a log.

    Attributes:
        table: The raw columns; `None` where the rows are hashed already.
        rows: What a random split hashes, int64 (n,), ascending: the number of each row in the
            whole log, rejected ones counted; a sampled negative has its positive's.
        bytes_done: Bytes of input consumed when this chunk was complete.
        times: Seconds since 1970 of each row, float64 (n,), where the log has a time column.
        hashed: The rows hashed, where a reader does that itself.
    """

    table: pa.Table | None
    rows: npt.NDArray[np.int64]
    bytes_done: int
    times: npt.NDArray[np.float64] | None = None
    hashed: HashedRows | None = None


class LogReader(Protocol):
    """One format's reading of some input files."""

    @property
    def schema(self) -> RawSchema:
        """The raw columns that the chunks have."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read, for their checksums and sizes."""

    @property
    def default_split(self) -> str:
        """The split that suits this log: "time" or "random"."""

    def chunks(self, bad: BadRows, max_rows: int | None = None) -> Iterator[RawChunk]:
        """The rows in log order; those that cannot be read go to `bad`."""

    def time_split(self, max_rows: int | None = None) -> Split:
        """The last day half validation, half test.

        Raises:
            ValueError: The log has no order in time.
        """

    def titles(self) -> dict[str, dict[str, str]]:
        """Display names by feature and raw value, where the log has them."""
