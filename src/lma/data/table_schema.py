"""What the columns of a user's own table are: a short TOML file.

    name = "shop"
    label = "click"                             # or {column = "stars", at_least = 4}
    dense = ["age", {name = "price", transform = "none"}]
    one_hot = ["user", "item"]
    multi_hot = [{name = "tags", separator = "|"}]      # lists of JSON and Parquet need none
    weight = "importance"
    time = {column = "at", format = "%Y-%m-%d %H:%M:%S"}    # or "epoch", "epoch_ms"

For text files also: `format` ("csv", "tsv", "jsonl", "parquet"; else the suffix tells),
`separator`, `quote`, and `columns`, the names where the first line does not hold them.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lma.data.delimited import Delimited
from lma.data.dense import TRANSFORMS
from lma.data.json_lines import JsonLines
from lma.data.parquet_rows import ParquetRows
from lma.data.raw import DenseColumn, RawFeature, RawSchema
from lma.data.row_checks import ColumnRules
from lma.errors import DataError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEYS: Final = (
    *("name", "description", "label", "dense", "one_hot", "multi_hot", "weight", "time"),
    *("format", "separator", "quote", "columns"),
)
SUFFIXES: Final = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table and how its files are written.

    Attributes:
        rules: Which columns there are and what makes a value usable.
        options: The keys format, separator, quote and columns, where given.
    """

    rules: ColumnRules
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> TableSchema:
        """The schema in a TOML file.

        Raises:
            DataError: It cannot be read, or a key or value in it is wrong.
        """
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        try:
            return cls.from_dict(data)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TableSchema:
        """The schema of parsed TOML.

        Raises:
            DataError: A key or value is wrong.
        """
        _known(data, KEYS, "key")
        label = _column(data.get("label"), "label", ("column", "at_least"))
        time = _column(data.get("time"), "time", ("column", "format"))
        weight = _column(data.get("weight"), "weight", ("column",))
        dense = [_entry(item, "dense", ("name", "transform")) for item in _list(data, "dense")]
        one_hot = [_entry(item, "one_hot", ("name",)) for item in _list(data, "one_hot")]
        bags = [
            _entry(item, "multi_hot", ("name", "separator")) for item in _list(data, "multi_hot")
        ]
        for item in dense:
            if item.get("transform", "log1p") not in TRANSFORMS:
                raise DataError(
                    f"dense column {item['name']!r}: transform must be one of "
                    f"{', '.join(TRANSFORMS)}, found {item['transform']!r}"
                )
        names = [item["name"] for item in (*dense, *one_hot, *bags)]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"column {name!r} is named twice")
            if name in ("label", "weight") and name not in (label["column"], weight["column"]):
                raise DataError(f"column {name!r}: the name is taken; rename the column")
        if not one_hot and not bags:
            raise DataError("there must be at least one column in one_hot or multi_hot")
        rules = ColumnRules(
            schema=RawSchema(
                name=_text(data, "name", "table"),
                dense=tuple(DenseColumn(i["name"], i.get("transform", "log1p")) for i in dense),
                features=(
                    *(RawFeature(item["name"]) for item in one_hot),
                    *(RawFeature(item["name"], multi_hot=True) for item in bags),
                ),
                description=_text(data, "description", ""),
                weighted=weight["column"] is not None,
            ),
            label=label["column"],
            label_at_least=label.get("at_least"),
            weight=weight["column"],
            time=time["column"],
            time_format=time.get("format", "%Y-%m-%d %H:%M:%S"),
            separators={item["name"]: item["separator"] for item in bags if "separator" in item},
        )
        options = {key: data[key] for key in KEYS[8:] if key in data}
        if options.get("format", "csv") not in SUFFIXES.values():
            raise DataError(
                f"format must be csv, tsv, jsonl or parquet, found {options['format']!r}"
            )
        return cls(rules, options)

    def source(self, file: Path) -> Delimited | JsonLines | ParquetRows:
        """What reads a file: by the schema's `format`, else by the file's suffix.

        Raises:
            DataError: Neither says it.
        """
        kind = self.options.get("format") or file_kind(file)
        rules = self.rules
        if kind == "parquet":
            return ParquetRows()
        if kind == "jsonl":
            numbers = [column.name for column in rules.schema.dense]
            numbers += [name for name in (rules.label, rules.weight) if name is not None]
            if rules.time is not None and rules.time_format.startswith("epoch"):
                numbers.append(rules.time)
            return JsonLines(numbers, [f.name for f in rules.schema.features if f.multi_hot])
        columns = self.options.get("columns")
        try:
            return Delimited(
                self.options.get("separator", "\t" if kind == "tsv" else ","),
                self.options.get("quote", "" if kind == "tsv" else '"'),
                None if columns is None else tuple(columns),
            )
        except ValueError as error:
            raise DataError(str(error)) from None


def file_kind(file: Path) -> str:
    """csv, tsv, jsonl or parquet, by the suffix before .gz or .zst.

    Raises:
        DataError: The suffix says nothing.
    """
    suffixes = [suffix for suffix in file.suffixes if suffix not in (".gz", ".zst", ".zstd")]
    kind = SUFFIXES.get(suffixes[-1].lower()) if suffixes else None
    if kind is None:
        raise DataError(
            f"{file}: cannot tell its format by its name; say format = "
            '"csv", "tsv", "jsonl" or "parquet"'
        )
    return kind


def _known(data: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in data:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"the nearest is {close[0]!r}" if close else f"there are {', '.join(known)}"
            raise DataError(f"unknown {what} {key!r}; {hint}")


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise DataError(f"{key} must be a list, found {value!r}")
    return value


def _text(data: Mapping[str, Any], key: str, default: str) -> str:
    value = data.get(key, default)
    if not isinstance(value, str):
        raise DataError(f"{key} must be a string, found {value!r}")
    return value


def _entry(item: Any, key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """A column's table: a bare name stands for {name = ...}."""
    if isinstance(item, str):
        return {"name": item}
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise DataError(f"{key}: expected a column's name, found {item!r}")
    _known(item, known, f"{key} key")
    return item


def _column(item: Any, key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if item is None or isinstance(item, str):
        return {"column": item}
    if not isinstance(item, dict) or not isinstance(item.get("column"), str):
        raise DataError(f"{key}: expected a column's name, found {item!r}")
    _known(item, known, f"{key} key")
    return item
