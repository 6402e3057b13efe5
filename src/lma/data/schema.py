"""What a prepared dataset holds: its dense columns and its categorical features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lma.errors import FormatError


@dataclass(frozen=True)
class Feature:
    """One categorical field; its embedding table has the same name.

    Attributes:
        name: Name of the field and of its table.
        multi_hot: Whether a row holds a bag of zero or more values instead of exactly one.
        num_embeddings: Number of ids, the one of unseen values included (the last id);
            `None` where ids are 64-bit hashes and every int64 is valid.
    """

    name: str
    multi_hot: bool = False
    num_embeddings: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The feature as JSON values."""
        return {
            "name": self.name,
            "multi_hot": self.multi_hot,
            "num_embeddings": self.num_embeddings,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Feature:
        """The feature that `to_dict` wrote."""
        return cls(data["name"], data["multi_hot"], data["num_embeddings"])


@dataclass(frozen=True)
class Schema:
    """The columns of a dataset after preparation.

    Attributes:
        name: Name of the dataset, such as "movielens-1m".
        dense: Names of the float columns as stored, missing flags included.
        features: The categorical fields, in the order of `Batch.values`.
        description: One sentence for people; a synthetic log says so here.
        weighted: Whether rows have weights.

    >>> schema = Schema("toy", ("price",), (Feature("city", num_embeddings=3),))
    >>> Schema.from_dict(schema.to_dict()) == schema
    True
    """

    name: str
    dense: tuple[str, ...]
    features: tuple[Feature, ...]
    description: str = ""
    weighted: bool = False

    @property
    def one_hot(self) -> tuple[Feature, ...]:
        """The features with exactly one value per row, in order."""
        return tuple(feature for feature in self.features if not feature.multi_hot)

    @property
    def multi_hot(self) -> tuple[Feature, ...]:
        """The features with a bag of values per row, in order."""
        return tuple(feature for feature in self.features if feature.multi_hot)

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON values."""
        return {
            "name": self.name,
            "description": self.description,
            "weighted": self.weighted,
            "dense": list(self.dense),
            "features": [feature.to_dict() for feature in self.features],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """The schema that `to_dict` wrote.

        Raises:
            FormatError: A key is missing.
        """
        try:
            return cls(
                name=data["name"],
                dense=tuple(data["dense"]),
                features=tuple(Feature.from_dict(feature) for feature in data["features"]),
                description=data.get("description", ""),
                weighted=data.get("weighted", False),
            )
        except KeyError as error:
            raise FormatError(f"schema: key {error} is missing") from None
