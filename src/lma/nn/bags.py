"""Checked forms of the inputs that bags come in."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_offsets(
    offsets: Tensor, total: int, *, include_last: bool, argument: str = "offsets"
) -> Tensor:
    """Offsets as int64 [bags + 1], ascending from 0 to `total`; an error says what is wrong."""
    if offsets.dtype not in (torch.int32, torch.int64) or offsets.dim() != 1:
        raise TypeError(
            f"{argument} must be a 1-D int32 or int64 tensor, found {offsets.dtype} "
            f"{list(offsets.shape)}"
        )
    offsets = offsets.long()
    if include_last:
        if not len(offsets):
            raise ValueError(f"{argument} must hold at least one entry, the end")
    else:
        offsets = torch.cat([offsets, offsets.new_tensor([total])])
    if int(offsets[0]) != 0 and total + len(offsets) > 1:
        raise ValueError(f"{argument}[0] must be 0, found {int(offsets[0])}")
    if int(offsets[-1]) != total:
        raise ValueError(
            f"{argument} must end at the number of ids, {total}, found {int(offsets[-1])}"
        )
    steps = offsets.diff()
    if bool((steps < 0).any()):
        at = int((steps < 0).nonzero()[0])
        raise ValueError(
            f"{argument} must not descend, found {int(offsets[at])} then {int(offsets[at + 1])}"
        )
    return offsets


def drop_entries(
    keep: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bags without the entries where `keep` is False."""
    before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.long().cumsum(0)])
    return ids[keep], before[offsets], None if weights is None else weights[keep]
