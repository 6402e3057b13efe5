"""A batch of rows as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """Rows of a log, ready for a model.

    Where every feature is one-hot, `values` is a matrix and `offsets` is `None`. Otherwise the
    bags are jagged, feature by feature (the layout of TorchRec's KeyedJaggedTensor). Two features,
    a batch of 2 rows; feature 0 has the bags [3], [5, 1], feature 1 the bags [], [7]:

        values  = [3, 5, 1, 7]
        offsets = [0, 1, 3, 3, 4]

    Attributes:
        dense: float32 (batch, num_dense), finite.
        values: int64 (batch, features), or int64 (total,) in feature-major order.
        offsets: `None`, or int64 (features * batch + 1,): bag b of feature f is
            `values[offsets[f * batch + b] : offsets[f * batch + b + 1]]`.
        labels: float32 (batch,), 0 or 1; NaN where the raw rows had no label.
        weights: float32 (batch,), how much each row counts; `None` where rows have no weights.
    """

    dense: torch.Tensor
    values: torch.Tensor
    offsets: torch.Tensor | None
    labels: torch.Tensor
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]
