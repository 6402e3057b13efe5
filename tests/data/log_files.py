"""Small logs on disk, and their reading by other means than the package's."""

from __future__ import annotations

import csv
import gzip
import math
from collections import Counter
from pathlib import Path

import numpy as np

from lma.hashing import combine_int, hash_string, stream_seed

INTEGERS = [f"I{j}" for j in range(1, 14)]
CATEGORIES = [f"C{f}" for f in range(1, 27)]
CRITEO_COLUMNS = ["label", *INTEGERS, *CATEGORIES]


def criteo_line(label="0", integers=None, categories=None) -> str:
    """One line of a Criteo file; empty fields where nothing is given."""
    integers = [""] * 13 if integers is None else integers
    categories = [""] * 26 if categories is None else categories
    return "\t".join([label, *map(str, integers), *categories])


def write_lines(path: Path, lines, compressed=False) -> Path:
    text = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if compressed else text)
    return path


def read_with_csv(path: Path, header=CRITEO_COLUMNS) -> list[dict[str, str]]:
    """Rows of a TSV file by the csv module."""
    with path.open(newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [dict(zip(header, row, strict=True)) for row in reader]


def random_split_by_hand(rows: int, seed: int) -> list[str]:
    """The split of each row, from the definition on plain integers."""
    state = stream_seed(seed, hash_string("split"))
    tenths = [((combine_int(state, row) >> 32) * 10) >> 32 for row in range(rows)]
    return ["train" if t < 8 else "validation" if t == 8 else "test" for t in tenths]


def rank_by_hand(values: list[str], min_count: int = 1) -> dict[str, int]:
    """Ids by support, ties by the unsigned hash."""
    counts = Counter(values)
    kept = [value for value, count in counts.items() if count >= min_count]
    kept.sort(key=lambda value: (-counts[value], hash_string(value)))
    return {value: rank for rank, value in enumerate(kept)}


def dense_by_hand(texts: list[str]) -> np.ndarray:
    """log1p of clamped values, then missing flags, of one row's integers."""
    values = [math.log1p(max(int(text), 0)) if text else 0.0 for text in texts]
    return np.array(values + [0.0 if text else 1.0 for text in texts], np.float32)
