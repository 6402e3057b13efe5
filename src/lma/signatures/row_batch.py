"""A checked batch of log rows, as builders take it in."""

from __future__ import annotations

import dataclasses
import operator

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class RowBatch:
    """Token ids of a batch, feature by feature, distinct within each bag.

    Two features, a batch of 2 rows; feature 0 has the bags [3], [5, 1], feature 1 [], [7]:

        values = [3, 1, 5, 7]    offsets = [0, 1, 3, 3, 4]

    Attributes:
        values: int64 [entries].
        offsets: Where bag `feature * num_rows + row` begins, int64 [features * num_rows + 1].
        num_features, num_rows: How many.
    """

    values: I64
    offsets: I64
    num_features: int
    num_rows: int

    @classmethod
    def of(
        cls, values: npt.ArrayLike, offsets: npt.ArrayLike | None, num_features: int, who: str
    ) -> RowBatch:
        """Check what `update` of builder `who` was given; a value repeated in a bag counts once.

        Args:
            values: Token ids: [batch, features], or feature-major [total] with `offsets`.
            offsets: [features * batch + 1], or None.
            num_features: Features expected.
            who: Name for the error messages.

        Raises:
            TypeError: The ids are not integers of at most 63 bits and a sign.
            ValueError: Shapes or offsets do not fit.
        """
        ids = check_ids(values, f"{who}.update: values")
        # Here, so that importing lma loads no Numba.
        from lma.kernels.cpu.signatures_bags import by_feature, distinct, longest_bag

        if offsets is None:
            if ids.ndim != 2 or ids.shape[1] != num_features:
                raise ValueError(
                    f"{who}.update: without offsets, values must be [batch, {num_features}], "
                    f"found {list(ids.shape)}"
                )
            flat = by_feature(np.ascontiguousarray(ids))
            return cls(flat, np.arange(len(flat) + 1), num_features, len(ids))
        offs = np.asarray(offsets)
        if (
            offs.dtype.kind not in "iu"
            or offs.ndim != 1
            or not len(offs)
            or (len(offs) - 1) % max(num_features, 1)
        ):
            raise ValueError(
                f"{who}.update: offsets must be integers [{num_features} * batch + 1], "
                f"found {offs.dtype} {list(offs.shape)}"
            )
        offs = np.ascontiguousarray(offs, dtype=np.int64)
        longest = longest_bag(offs)
        if ids.ndim != 1 or offs[0] != 0 or offs[-1] != len(ids) or longest < 0:
            raise ValueError(
                f"{who}.update: offsets must ascend from 0 to len(values), found "
                f"{offs[0]} ... {offs[-1]} for values of shape {list(ids.shape)}"
            )
        ids = np.ascontiguousarray(ids)
        if longest > 1:
            ids, offs = distinct(ids, offs)
        return cls(ids, offs, num_features, (len(offs) - 1) // max(num_features, 1))

    def take(self, rows: npt.NDArray[np.int64]) -> RowBatch:
        """Some of the rows, by position, as a batch of their own."""
        bags = (np.arange(self.num_features)[:, None] * self.num_rows + rows).reshape(-1)
        lengths = self.offsets[bags + 1] - self.offsets[bags]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        # Entry e of bag b: where the old bag begins, and how far e is into the new one.
        entries = np.arange(offsets[-1]) + np.repeat(self.offsets[bags] - offsets[:-1], lengths)
        return RowBatch(self.values[entries], offsets, self.num_features, len(rows))

    def feature(self, number: int) -> slice:
        """Where the entries of a feature lie in `values`."""
        first = number * self.num_rows
        return slice(int(self.offsets[first]), int(self.offsets[first + self.num_rows]))


def check_ids(values: npt.ArrayLike, what: str) -> npt.NDArray[np.int64]:
    """Token ids as int64, of any shape; `TypeError` for anything else.

    Args:
        values: Integers of at most 63 bits and a sign.
        what: Name for the error message.
    """
    ids = np.asarray(values)
    if ids.dtype.kind not in "iu" or ids.dtype == np.uint64:
        # NumPy makes one of these of a list in which an integer is beyond int64.
        cure = (
            " (of integers beyond int64, perhaps; unsigned hashes become ids by .view(np.int64))"
            if ids.dtype in (np.uint64, np.float64, np.object_)
            else ""
        )
        raise TypeError(f"{what} must be int64 ids, found {ids.dtype}{cure}")
    return ids.astype(np.int64, copy=False)


def check_first_row(first_row: int | None, num_rows: int, who: str) -> None:
    """`ValueError` or `TypeError` unless rows from `first_row` on have numbers within int64."""
    if first_row is None:
        return
    try:
        first = operator.index(first_row)
    except TypeError:
        raise TypeError(
            f"{who}.update: first_row must be an integer, found {first_row!r}"
        ) from None
    if not 0 <= first < (1 << 63) - num_rows:
        raise ValueError(f"{who}.update: first_row must be a row's number >= 0, found {first}")


def check_labels(labels: npt.ArrayLike | None, num_rows: int, who: str) -> npt.NDArray[np.uint64]:
    """Labels as 0 or 1, uint64 [num_rows]; `ValueError` for anything else."""
    if labels is None:
        raise ValueError(f"{who}.update: this similarity needs labels, found None")
    label = np.asarray(labels)
    if label.shape != (num_rows,) or not np.all((label == 0) | (label == 1)):
        raise ValueError(
            f"{who}.update: labels must be 0 or 1, shape [{num_rows}], "
            f"found shape {list(label.shape)} with values {np.unique(label)[:5]}"
        )
    return label.astype(np.uint64)
