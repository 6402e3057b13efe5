"""Checked forms of the inputs that bags come in."""

from __future__ import annotations

import torch
from torch import Tensor

from lma.kernels import ops


def checked_offsets(
    offsets: Tensor, total: int, *, include_last: bool, argument: str = "offsets"
) -> Tensor:
    """Offsets as int64 [bags + 1], ascending from 0 to `total`; an error says what is wrong."""
    if offsets.dtype not in (torch.int32, torch.int64) or offsets.dim() != 1:
        raise TypeError(
            f"{argument} must be a 1-D int32 or int64 tensor, found {offsets.dtype} "
            f"{list(offsets.shape)}"
        )
    if include_last:
        if not len(offsets):
            raise ValueError(f"{argument} must hold at least one entry, the end")
    else:
        offsets = torch.cat([offsets, offsets.new_tensor([total])])
    return ops.accept_offsets(offsets, total, argument)  # type: ignore[no-any-return]


def drop_entries(
    keep: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bags without the entries where `keep` is False."""
    before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.long().cumsum(0)])
    return ids[keep], before[offsets], None if weights is None else weights[keep]
