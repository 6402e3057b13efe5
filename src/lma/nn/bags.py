"""Checked forms of the inputs that bags come in."""

from __future__ import annotations

import torch
from torch import Tensor

from lma.kernels import ops


def checked_offsets(
    offsets: Tensor, ids: Tensor, *, include_last: bool, argument: str = "offsets"
) -> Tensor:
    """Offsets into ids [total] as int64 [bags + 1], ascending from 0 to total."""
    check_tensor(argument, offsets)
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
    check_tensor("per_sample_weights", weights)
    if weights.shape != ids.shape:
        raise ValueError(
            f"per_sample_weights must have the shape of {what} {list(ids.shape)}, "
            f"found {list(weights.shape)}"
        )
    if not weights.is_floating_point():
        raise TypeError(f"per_sample_weights must be floats, found {weights.dtype}")
    check_device("per_sample_weights", weights, ids)


def check_tensor(argument: str, value: object) -> None:
    """Kernels read raw memory: neither lists nor sparse tensors get that far."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{argument} must be a tensor, found {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{argument} must be a dense tensor, found {value.layout}")


def check_device(argument: str, tensor: Tensor, ids: Tensor) -> None:
    """Kernels read raw memory: a tensor from another device must not get that far."""
    if tensor.device != ids.device:
        raise ValueError(
            f"{argument} are on {tensor.device}, the ids on {ids.device}: move one of them"
        )


def drop_entries(
    keep: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bags without the entries where `keep` is False; while compiling, by `set_aside`."""
    before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.long().cumsum(0)])
    entries, offsets = keep, before[offsets]
    if torch.compiler.is_compiling():
        entries, offsets = set_aside(keep, offsets)
    return ids[entries], offsets, None if weights is None else weights[entries]


def set_aside(keep: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """What to read instead of dropping entries, in shapes that no data decide: for one graph.

    Entries to leave out go behind the others, into as many bags again for the caller to cut off.
    They read what kept entries read, so that no gradient lists a block on their account.

        ids     = [ 5, P, 7, P, P ]     offsets = [ 0, 1, 2 ]  (P: left out, and not counted)
        entries = [ 0, 2, 0, 2, 0 ]     offsets = [ 0, 1, 2, 3, 5 ]

    Args:
        keep: bool [total].
        offsets: Of the kept entries alone, int64 [bags + 1].

    Returns:
        Which entry to read in each place, int64 [total] (all 0 if none is kept), and their
        offsets, int64 [2 * bags + 1].
    """
    total, bags = len(keep), len(offsets) - 1
    entries = torch.arange(total, device=keep.device)
    kept = offsets[-1]
    place = torch.where(keep, keep.cumsum(0) - 1, kept + (~keep).cumsum(0) - 1)
    order = torch.empty_like(entries).scatter(0, place, entries)
    # In bags of equal length: a kernel gives each bag to one thread.
    share = torch.arange(1, bags + 1, device=keep.device)
    ends = kept + (total - kept) * share // max(1, bags)
    return order[entries % kept.clamp(min=1)], torch.cat([offsets, ends])
