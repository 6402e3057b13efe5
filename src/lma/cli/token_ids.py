"""The ids of tables of hashed ids, which no dictionary lists: from the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lma.data import Dataset

BATCH = 1 << 16


def ids_of_rows(dataset: Dataset, tables: Sequence[str]) -> dict[str, Tensor]:
    """The distinct ids of some tables in the training rows, int64, in the order they come.

    One pass over the rows, 25 bytes per id.
    """
    from lma.signatures.row_batch import RowBatch
    from lma.signatures.tokens import KeyedTokens

    names = [feature.name for feature in dataset.schema.features]
    met = {name: KeyedTokens(name) for name in tables}
    if met:
        for batch in dataset.batches("train", BATCH):
            rows = RowBatch.of(batch.values, batch.offsets, len(names), "ids_of_rows")
            for name, tokens in met.items():
                tokens.locate(rows.values[rows.feature(names.index(name))])
    return {name: torch.from_numpy(tokens.ids()) for name, tokens in met.items()}
