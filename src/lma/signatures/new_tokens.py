"""Context sums of tokens from a handful of rows: what `ContextCodeBuilder.encode` quantises."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lma.kernels.reference.context_vectors import context_sums
from lma.signatures.row_batch import RowBatch

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def sums_of_tokens(
    batch: RowBatch,
    feature: int,
    slots: I64,
    vectors: F32,
    mean: F32 | None,
    targets: F32,
    used: npt.NDArray[np.bool_],
    shrinkage: float,
) -> tuple[I64, F32, F64]:
    """Sums of contexts of one feature's tokens, as a pass over these rows alone gives them.

    Args:
        batch: The rows.
        feature: Number of the tokens' feature.
        slots: Stored token of every entry, -1 for none, which adds nothing to others.
        vectors: Of the stored tokens, [stored, dim].
        mean: Mean label of the stored tokens less the log's, [stored]; None: no labels.
        targets: Label of every row less the log's mean, [rows].
        used: Whether a row is used, [rows].
        shrinkage: Rows of the average token mixed into a token's mean label.

    Returns:
        The feature's distinct ids, ascending; their sums [ids, dim]; their rows [ids].
    """
    row = np.repeat(np.arange(len(batch.offsets) - 1), np.diff(batch.offsets))
    row %= max(batch.num_rows, 1)
    known = slots >= 0
    met = np.zeros((len(slots), vectors.shape[1]), np.float32)
    met[known] = vectors[slots[known]]
    mine = batch.feature(feature)
    ids, number = np.unique(batch.values[mine], return_inverse=True)
    chosen = used[row[mine]]
    rows = np.bincount(number[chosen], minlength=len(ids)).astype(np.float64)
    means = None
    if mean is not None:
        means = np.zeros(len(slots), np.float32)
        means[known] = mean[slots[known]]
        # These tokens' own means come from the rows at hand.
        total = np.bincount(number, weights=targets[row[mine]], minlength=len(ids))
        means[mine] = (total / (rows + max(shrinkage, 1e-9)))[number]
    added = context_sums(row, met, means, targets, batch.num_rows)[mine]
    sums = np.zeros((len(ids), vectors.shape[1]))
    np.add.at(sums, number[chosen], added[chosen])
    return ids, sums.astype(np.float32), rows


__all__ = ["sums_of_tokens"]
