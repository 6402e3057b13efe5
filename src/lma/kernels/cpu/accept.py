"""Ids checked or mended in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lma.kernels.cpu.mix import kernel
from lma.kernels.reference.inputs import CLAMP, WRAP, outside

_WRAP, _CLAMP = WRAP, CLAMP


@kernel
def accept_range(ids: Any, numbers: Any, sizes: Any, policy: Any, out: Any) -> Any:
    """Mended ids into `out`; the first entry that stays outside its table, or -1."""
    features = numbers.shape[0]
    bad = -1
    f = 0
    for e in range(ids.shape[0]):
        token = ids[e]
        size = sizes[np.uint64(numbers[f])]
        # Unsigned, negative ids are large, and so is the -1 of a table that takes any id.
        if np.uint64(token) >= np.uint64(size) and size >= 0:
            if policy == _WRAP and size > 0:
                token = token % size
            elif policy == _CLAMP and size > 0:
                token = 0 if token < 0 else size - 1
            elif bad < 0:
                bad = e
        out[e] = token
        f += 1
        if f == features:
            f = 0
    return bad


def accept_ids(
    ids: Tensor, numbers: Tensor, sizes: Tensor, policy: int, check: bool, names: str
) -> Tensor:
    """`reference.accept_ids`."""
    out = torch.empty_like(ids, memory_format=torch.contiguous_format)
    bad = accept_range(
        ids.contiguous().numpy(), numbers.numpy(), sizes.numpy(), policy, out.numpy()
    )
    if check and bad >= 0:
        raise outside(bad, ids, numbers, sizes, names)
    return out
