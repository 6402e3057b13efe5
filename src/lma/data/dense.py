"""Numbers of a log as finite floats, each with a flag that says whether it was missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from lma.data.raw import DenseColumn

if TYPE_CHECKING:
    import pyarrow as pa

MISSING_SUFFIX: Final = "_missing"
TRANSFORMS: Final = ("log1p", "asinh", "none")


def dense_names(columns: Sequence[DenseColumn]) -> tuple[str, ...]:
    """Names of the stored columns: all values, then all missing flags."""
    names = tuple(column.name for column in columns)
    return names + tuple(name + MISSING_SUFFIX for name in names)


def transform(values: npt.NDArray[np.float64], kind: str) -> npt.NDArray[np.float32]:
    """The values as float32, finite for finite values.

    Args:
        values: Any shape, finite.
        kind: "log1p": log(1 + max(x, 0)); "asinh": log(x + sqrt(x^2 + 1)), for values of both
            signs; "none": x, clamped to what float32 holds.

    Raises:
        ValueError: Another kind.
    """
    if kind == "log1p":
        return np.log1p(np.maximum(values, 0.0)).astype(np.float32)
    if kind == "asinh":
        return np.arcsinh(values).astype(np.float32)
    if kind == "none":
        limit = np.finfo(np.float32).max
        return np.clip(values, -limit, limit).astype(np.float32)
    raise ValueError(f"dense transform must be one of {TRANSFORMS}, found {kind!r}")


def dense_matrix(
    table: pa.Table,
    columns: Sequence[DenseColumn],
    run: Callable[..., Iterable[None]] = map,
) -> npt.NDArray[np.float32]:
    """Transformed values and missing flags, float32 (rows, 2 * columns).

    A missing value (null, NaN or infinite) is 0 with its flag 1.

    Args:
        table: The raw columns.
        columns: Which of them, and how.
        run: `map`, or a thread pool's: columns are independent.
    """
    count = len(columns)
    dense = np.zeros((table.num_rows, 2 * count), np.float32)

    def fill(j: int) -> None:
        column, kind = table.column(columns[j].name), columns[j].transform
        if kind == "log1p" and str(column.type) == "int64":
            values = column.fill_null(0).to_numpy()
            dense[:, j] = _log1p_of_integers(values)
            if column.null_count:
                dense[:, count + j] = column.is_null().to_numpy()
            return
        numbers = column.to_numpy().astype(np.float64)
        missing = ~np.isfinite(numbers)
        numbers[missing] = 0
        dense[:, j] = transform(numbers, kind)
        dense[missing, j] = 0
        dense[missing, count + j] = 1

    for _ in run(fill, range(count)):
        pass
    return dense


def _log1p_of_integers(values: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """`transform(values, "log1p")`; counts are small, so most results are looked up."""
    table = small_log1p()
    found: npt.NDArray[np.float32] = np.take(table, np.clip(values, 0, len(table) - 1))
    (large,) = np.nonzero(values >= len(table))
    found[large] = transform(values[large].astype(np.float64), "log1p")
    return found


@cache
def small_log1p() -> npt.NDArray[np.float32]:
    """`transform(x, "log1p")` of the integers x below 65,536."""
    return transform(np.arange(1 << 16, dtype=np.float64), "log1p")
