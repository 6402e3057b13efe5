"""Checked forms of the inputs that bags come in."""

from __future__ import annotations

import torch
from torch import Tensor

from lma.kernels import ops


def checked_offsets(
    offsets: Tensor, ids: Tensor, *, include_last: bool, argument: str = "offsets"
) -> Tensor:
    """Offsets into ids [total] as int64 [bags + 1], ascending from 0 to total."""
    total = len(ids)
    if offsets.dtype not in (torch.int32, torch.int64) or offsets.dim() != 1:
        raise TypeError(
            f"{argument} must be a 1-D int32 or int64 tensor, found {offsets.dtype} "
            f"{list(offsets.shape)}"
        )
    check_device(argument, offsets, ids)
    if include_last:
        if not len(offsets):
            raise ValueError(f"{argument} must hold at least one entry, the end")
    else:
        offsets = torch.cat([offsets, offsets.new_tensor([total])])
    return ops.accept_offsets(offsets, total, argument)  # type: ignore[no-any-return]


def check_weights(weights: Tensor, ids: Tensor, what: str) -> None:
    """`per_sample_weights` must be floats beside every id."""
    if weights.shape != ids.shape:
        raise ValueError(
            f"per_sample_weights must have the shape of {what} {list(ids.shape)}, "
            f"found {list(weights.shape)}"
        )
    if not weights.is_floating_point():
        raise TypeError(f"per_sample_weights must be floats, found {weights.dtype}")
    check_device("per_sample_weights", weights, ids)


def check_device(argument: str, tensor: Tensor, ids: Tensor) -> None:
    """Kernels read raw memory: a tensor from another device must not get that far."""
    if tensor.device != ids.device:
        raise ValueError(
            f"{argument} are on {tensor.device}, the ids on {ids.device}: move one of them"
        )


def drop_entries(
    keep: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bags without the entries where `keep` is False."""
    before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.long().cumsum(0)])
    return ids[keep], before[offsets], None if weights is None else weights[keep]
