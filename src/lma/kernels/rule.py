"""`Rule`: everything that says where tokens' vectors lie, as the tensors that kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lma.kernels.layout import Column
from lma.kernels.reference.addresses import LANES


class Rule(NamedTuple):
    """A layout and the tensors its rows point into; all int64 unless said.

    Attributes:
        layout: One row per table, [tables, columns].
        seeds: State of chunk j's hash function, [chunks].
        draws: Which codes a chunk draws, uint8 [chunks, power].
        codes: Signatures of all tables, uint8 [bytes + 2].
        fingerprints: int16 [buckets, 8].
        overflow_keys: [overflow], ascending within each table.
        chunk: Floats of one chunk.
        stride: Floats from one block to the next; below `chunk` where runs overlap.
        lead: Whether some table has a private part: 1, else 0.
    """

    layout: Tensor
    seeds: Tensor
    draws: Tensor
    codes: Tensor
    fingerprints: Tensor
    overflow_keys: Tensor
    chunk: int
    stride: int
    lead: int

    def pieces(self, dim: int, private: int) -> int:
        """Starts of one token's vector: one for the private part, one per chunk."""
        return self.lead + -(-(dim - private) // self.chunk)


def hashed_layout(salts: Tensor, dims: Sequence[int], num_blocks: int | Sequence[int]) -> Tensor:
    """Layout rows of tables without signatures, all blocks from float 0 on.

    Args:
        salts: Hashes of the tables' names, int64 [tables].
        dims: Their dimensions.
        num_blocks: Blocks that a table hashes into, of every table or of all.
    """
    layout = torch.zeros(len(salts), len(Column), dtype=torch.int64)
    layout[:, Column.SALT] = salts
    layout[:, Column.DIM] = torch.tensor(dims, dtype=torch.int64)
    layout[:, Column.HASHED_BLOCKS] = torch.as_tensor(num_blocks, dtype=torch.int64)
    return layout


def unsigned_rule(layout: Tensor, seeds: Tensor, chunk: int, stride: int) -> Rule:
    """The rule of tables without signatures."""
    return Rule(
        layout,
        seeds,
        seeds.new_zeros(len(seeds), 1, dtype=torch.uint8),
        seeds.new_zeros(2, dtype=torch.uint8),
        seeds.new_zeros(0, LANES, dtype=torch.int16),
        seeds.new_zeros(0),
        chunk,
        stride,
        0,
    )
