"""Ids and offsets checked by value, as ops: the checks stay inside a compiled graph."""

from __future__ import annotations

import torch
from torch import Tensor

ERROR, WRAP, CLAMP = range(3)  # what an id outside its table does


def accept_ids(
    ids: Tensor, numbers: Tensor, sizes: Tensor, policy: int, check: bool, names: str
) -> Tensor:
    """Ids within their tables, int64 [entries].

    Args:
        ids: int64 [entries].
        numbers: Tables; entry e is of table numbers[e % len(numbers)].
        sizes: Ids of table t are 0 ... sizes[t] - 1; -1: any int64.
        policy: `ERROR`, `WRAP` (id modulo size) or `CLAMP` (the nearest end).
        check: Whether an id may still be outside: with `ERROR`, and in tables without rows.
        names: The tables' names, one per line, for the error.

    Raises:
        IndexError: An id that stays outside its table.
    """
    if not len(ids):
        return ids.clone()
    size = sizes[numbers.repeat(len(ids) // len(numbers))]
    free = size < 0
    mended = ids.clone()
    if policy == WRAP:
        mended = torch.where(free, ids, ids.remainder(size.clamp(min=1)))
    elif policy == CLAMP:
        mended = torch.where(free, ids, torch.minimum(ids.clamp(min=0), (size - 1).clamp(min=0)))
    if check:
        bad = ((mended < 0) | (mended >= size)) & ~free
        if bool(bad.any()):
            raise outside(int(bad.nonzero()[0]), mended, numbers, sizes, names)
    return mended


def outside(entry: int, ids: Tensor, numbers: Tensor, sizes: Tensor, names: str) -> IndexError:
    """The error for an id outside its table."""
    number = int(numbers[entry % len(numbers)])
    return IndexError(
        f"id {int(ids[entry])} of table {names.split(chr(10))[number]!r} is outside "
        f"[0, {int(sizes[number])}); out_of_range='wrap' or 'clamp' takes such ids in, "
        "num_embeddings=None accepts any int64"
    )


def accept_offsets(offsets: Tensor, total: int, argument: str) -> Tensor:
    """Offsets as int64 [bags + 1], ascending from 0 to `total`.

    Args:
        offsets: int32 or int64 [bags + 1].
        total: Number of ids.
        argument: Its name in errors.

    Raises:
        ValueError: Says what is wrong.
    """
    checked = offsets.to(torch.int64, copy=True)
    if int(checked[0]) != 0 and total + len(checked) > 1:
        raise ValueError(f"{argument}[0] must be 0, found {int(checked[0])}")
    if int(checked[-1]) != total:
        raise ValueError(
            f"{argument} must end at the number of ids, {total}, found {int(checked[-1])}"
        )
    steps = checked.diff()
    if bool((steps < 0).any()):
        at = int((steps < 0).nonzero()[0])
        raise ValueError(
            f"{argument} must not descend, found {int(checked[at])} then {int(checked[at + 1])}"
        )
    return checked
