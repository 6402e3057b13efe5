"""What speed has to say where only a budget is given: the gradient's form and the block size.

Both rules are read off measurements, which are in `docs/results/kernels.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

GradientMode = Literal["dense", "sparse", "fused"]

# `gradient_modes.py`: an update in the backward pass wins where the memory has this many times the
# floats that a step reads, over the square of the block size; torch's optimizers on sparse
# gradients where it has this many times those floats, over the block size.
FUSED_FROM, SPARSE_FROM = 1, 16
# Below four chunks quality suffers, and beyond a cache line (16 floats) blocks are hardly faster.
FEWEST_CHUNKS, LARGEST_BLOCK = 4, 16
FEWEST_BLOCKS = 1024


def gradient_mode(
    weight_floats: int, block_size: int, floats_per_step: int, *, fused: bool = True
) -> GradientMode:
    """The fastest form of a memory's gradient, by measured crossover.

    "dense": a gradient of the memory's size, for any optimizer. "sparse": one of touched blocks
    (`SharedMemory(sparse=True)`), for torch's SGD, Adagrad and SparseAdam. "fused": none at all,
    `FusedOptimizer` updates touched blocks in the backward pass.

    Args:
        weight_floats: Floats of the memory.
        block_size: Floats of one block.
        floats_per_step: Floats that one training step reads: rows x features x dimension.
        fused: Whether an update in the backward pass is possible: SGD, Adagrad or Adam without
            weight decay, clipping, accumulation, GradScaler and DistributedDataParallel.

    >>> gradient_mode(1_000, 4, 850_000), gradient_mode(1_000_000, 4, 850_000)
    ('dense', 'fused')
    >>> gradient_mode(1_000_000, 4, 850_000, fused=False)
    'dense'
    """
    if fused and weight_floats * block_size**2 > FUSED_FROM * floats_per_step:
        return "fused"
    if not fused and weight_floats * block_size > SPARSE_FROM * floats_per_step:
        return "sparse"
    return "dense"


def fast_block_size(memory_floats: float, dims: Iterable[int]) -> int:
    """The block size of a memory of which only the size is known: a power of 2, 16 at most.

    Every vector of shared blocks alone keeps at least four chunks, so that two tokens may share a
    quarter of theirs, and the memory at least 1024 blocks, so that few share by accident.

    Args:
        memory_floats: Floats of the memory.
        dims: Dimensions of the tables that read it.

    >>> fast_block_size(1e6, [16]), fast_block_size(1e6, [64, 128]), fast_block_size(2048, [64])
    (4, 16, 2)
    """
    dims = list(dims)
    size = LARGEST_BLOCK
    while size > 1 and (
        any(dim % size or dim < FEWEST_CHUNKS * size for dim in dims)
        or memory_floats < FEWEST_BLOCKS * size
    ):
        size //= 2
    return size


__all__ = ["GradientMode", "fast_block_size", "gradient_mode"]
