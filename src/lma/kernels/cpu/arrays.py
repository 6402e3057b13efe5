"""Torch tensors as the arrays that kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lma.kernels.cpu.address_kernel import COLUMNS, scale_rows

_NO_INTEGERS = np.empty(0, np.int64)
NO_ROWS = np.empty(0, np.int32)
NO_FLOATS = np.empty(0, np.float32)


def array(tensor: Tensor) -> Any:
    """The tensor's memory where it is contiguous, else a copy."""
    return tensor.detach().contiguous().numpy()


def bag_arrays(offsets: Tensor | None, factors: Tensor | None) -> tuple[Any, Any]:
    """Offsets and factors as kernels take them: empty where there are none."""
    return (
        _NO_INTEGERS if offsets is None else array(offsets),
        NO_FLOATS if factors is None else array(factors.to(torch.float32)),
    )


def scaled(layout: Tensor, seeds: Tensor, unit: int, chunk: int) -> tuple[Any, Any]:
    """`scale_rows`: (rows, states)."""
    rows = np.empty((len(layout), COLUMNS + 3), np.int64)
    states = np.empty((len(layout), len(seeds)), np.uint64)
    scale_rows(array(layout), array(seeds).view(np.uint64), unit, chunk, rows, states)
    return rows, states
