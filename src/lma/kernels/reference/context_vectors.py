"""Sums of context vectors of a batch of log rows, in plain NumPy: the judge of the kernels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


def context_sums(
    row: I64, vectors: F32, means: F32 | None, targets: F32, num_rows: int
) -> npt.NDArray[np.float64]:
    """What every entry of a batch adds to its token's sum.

    An entry e of row r meets the other entries u of its row. With q_u the vector and m_u the mean
    label of u's token, y_r the row's label less the log's mean:

        sum over u != e of (y_r - m_e - m_u) q_u        labels' residuals
        sum over u != e of q_u                          without labels (`means` None)

    which is O(entries) per row: with S = sum q_u and T = sum m_u q_u over the whole row it is
    (y_r - m_e) (S - q_e) - (T - m_e q_e).

    Args:
        row: Row of every entry, int64 [entries].
        vectors: q, one per entry, [entries, dim].
        means: m, mean label less the log's mean, one per entry [entries]; None: no labels.
        targets: y, one per row, [num_rows].
        num_rows: Rows in the batch.

    Returns:
        float64 [entries, dim].
    """
    q = vectors.astype(np.float64)
    total = np.zeros((num_rows, q.shape[1]))
    np.add.at(total, row, q)
    others = total[row] - q
    if means is None:
        return others
    m = means.astype(np.float64)[:, None]
    weighted = np.zeros_like(total)
    np.add.at(weighted, row, m * q)
    return (targets.astype(np.float64)[row, None] - m) * others - (weighted[row] - m * q)


__all__ = ["context_sums"]
