"""One table from many processes: builders summed up over `torch.distributed`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lma.errors import LmaError
from lma.signatures.context import ContextCodeBuilder
from lma.signatures.minhash import MinHashBuilder
from lma.signatures.support import SupportCounter
from lma.signatures.tokens import KeyedTokens

PIECE = 1 << 24  # numbers sent at a time


def all_reduce(
    builder: MinHashBuilder | ContextCodeBuilder | SupportCounter, group: Any = None
) -> None:
    """Merge the builders of all processes; every process then holds the whole.

    Each process reads its share of the rows (`Dataset.batches(rank=, world_size=)`), then calls
    this: once for min-hash, of which the minimum is taken, and at the end of every pass, before
    `next_pass()`, for context vectors, which are sums of integers. Both give the bits that one
    process gives which reads all rows. Row numbers must be those of the whole log: pass
    `first_row` to `MinHashBuilder.update` where the similarity is "rows", and to
    `ContextCodeBuilder.update` where not all rows can be kept (more than 8 million ids of them).

    Args:
        builder: Made alike in all processes. Where ids are any values, all must have been given
            the same `tokens=`: count them first, with a `SupportCounter` reduced the same way.
        group: Process group; None: the default one. Its backend must reduce tensors on the CPU,
            as gloo does.

    Raises:
        LmaError: Processes disagree on the settings (both are named), or tokens were not given.
    """
    if isinstance(builder, SupportCounter):
        _merge_counters(builder, group)
        return
    for tokens in builder.tokens.values():
        if isinstance(tokens, KeyedTokens) and tokens.grows:
            raise LmaError(
                f"all_reduce: table {tokens.name!r} learns its ids as they come, in another order "
                "in each process; count them with a SupportCounter, all_reduce it, and give "
                "tokens= to every builder"
            )
    _check_alike(builder.settings(), group)
    if isinstance(builder, MinHashBuilder):
        builder.reduce(lambda array, how: _reduce(array, how, group))
    else:
        builder.reduce(
            lambda array, how: _reduce(array, how, group), lambda own: _gather(own, group)
        )


def _gather(own: Any, group: Any) -> list[Any]:
    """What every process has, in the order of ranks."""
    import torch.distributed as dist

    every: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(every, own, group=group)
    return every


def _check_alike(settings: dict[str, object], group: Any) -> None:
    """All processes raise if any two disagree."""
    every = _gather(settings, group)
    for rank, other in enumerate(every):
        if other != every[0]:
            raise LmaError(
                f"all_reduce: builders of different settings: process 0 has {every[0]}, process "
                f"{rank} has {other}"
            )


def _merge_counters(counter: SupportCounter, group: Any) -> None:
    whole, *others = _gather(counter, group)
    for other in others:
        whole.merge(other)
    counter.__dict__.update(whole.__dict__)


def _reduce(array: npt.NDArray[Any], how: str, group: Any) -> None:
    """Change an array to its minimum, maximum or sum over all processes."""
    import torch.distributed as dist

    operation = {"min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX, "sum": dist.ReduceOp.SUM}[how]
    flat = array.reshape(-1)
    if not np.shares_memory(flat, array) and flat.size:
        raise ValueError("all_reduce: arrays must be contiguous")
    for start in range(0, len(flat), PIECE):
        piece = flat[start : start + PIECE]
        if piece.dtype.kind == "u":
            # Backends know signed numbers alone; the flipped top bit keeps the order.
            signed = piece.view(piece.dtype.str.replace("u", "i"))
            top = np.iinfo(signed.dtype).min
            signed ^= top
            dist.all_reduce(torch.from_numpy(signed), operation, group=group)
            signed ^= top
        else:
            dist.all_reduce(torch.from_numpy(piece), operation, group=group)


__all__ = ["all_reduce"]
