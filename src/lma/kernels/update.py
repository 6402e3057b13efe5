"""Optimizers that run inside the backward pass: their numbers, as kernels take them."""

from __future__ import annotations

from enum import IntEnum


class UpdateKind(IntEnum):
    """How a touched block is updated from its summed gradient g."""

    SGD = 0  # w -= lr g
    ADAGRAD = 1  # s += g^2;               w -= lr g / (sqrt(s) + eps)
    BLOCK_ADAGRAD = 2  # s += mean(g^2), one per block; w -= lr g / (sqrt(s) + eps)
    ADAM = 3  # torch.optim.SparseAdam: moments of touched blocks move, lr is bias-corrected
