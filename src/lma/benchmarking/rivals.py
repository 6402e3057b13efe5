"""What a compressed embedding is measured against: full tables, FBGEMM, and a bare gather."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lma.kernels.lookup import chunk_starts
from lma.nn import EmbeddingBagCollection

Step = Callable[[], Any]


def in_turn(function: Callable[[Any], Any], batches: Sequence[Any]) -> Step:
    """Call `function` with the next batch each time."""
    count = 0

    def step() -> Any:
        nonlocal count
        count += 1
        return function(batches[count % len(batches)])

    return step


class FullTables(nn.Module):
    """One `nn.EmbeddingBag` per table, with sparse gradients, as DLRM's embeddings."""

    def __init__(self, tokens: list[int], dim: int) -> None:
        super().__init__()
        self.embedding_dim = dim
        self.features = tuple(f"C{i + 1}" for i in range(len(tokens)))
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(size, dim, mode="sum", sparse=True) for size in tokens
        )

    def forward(self, values: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Vectors [batch, features * dim] of ids [batch, features]."""
        return torch.cat([t(values[:, i : i + 1]) for i, t in enumerate(self.tables)], 1)


def fbgemm_tables(tokens: list[int], dim: int) -> Any:
    """FBGEMM's CPU table-batched embedding with exact Adagrad, or None where it is missing."""
    try:
        import fbgemm_gpu  # noqa: F401 registers its operators
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )
    except (ImportError, OSError):
        return None
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(s, dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for s in tokens],
        optimizer=EmbOptimType.EXACT_ADAGRAD,
        learning_rate=0.01,
    )


def block_numbers(module: EmbeddingBagCollection, batches: list[Tensor]) -> list[Tensor]:
    """The blocks that every batch's vectors consist of, int64."""
    allocation = module.allocation
    rule = allocation.rule()
    if rule is None:
        raise ValueError(f"{type(allocation).__name__} has no blocks to gather")
    numbers = torch.arange(len(allocation.tables), device=batches[0].device)
    pieces = allocation.pieces([allocation.group(0)])
    return [
        chunk_starts(rule, ids.reshape(-1), numbers, allocation.block_size, pieces)
        .reshape(-1)
        .long()
        for ids in batches
    ]


def bare_gather(module: EmbeddingBagCollection, batches: list[Tensor]) -> Step:
    """`index_select` of the same blocks, their numbers known."""
    weight = module.memory.weight.detach()
    return in_turn(lambda index: weight.index_select(0, index), block_numbers(module, batches))


def bare_moves(module: EmbeddingBagCollection, grad: Tensor, batches: list[Tensor]) -> Step:
    """A step's moves in torch's operations, the blocks' numbers known: no bound, a comparison.

    The gather, one pass over the vectors' gradient, and every touched block copied out and back:
    nothing hashed, nothing added up, no optimizer and no state of one. A step may take less: a
    token that many rows have is gathered here for each of them, and touched blocks go through a
    temporary copy.
    """
    weight = module.memory.weight.detach()

    def step(blocks: tuple[Tensor, Tensor]) -> None:
        weight.index_select(0, blocks[0])
        grad.sum()
        weight.index_copy_(0, blocks[1], weight.index_select(0, blocks[1]))

    numbers = block_numbers(module, batches)
    return in_turn(step, [(blocks, torch.unique(blocks)) for blocks in numbers])
