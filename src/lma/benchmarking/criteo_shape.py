"""Inputs with Criteo's shape: 26 published cardinalities scaled by one factor, Zipf ids."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lma.allocation import Table
from lma.allocation.lma import LmaAllocation
from lma.allocation.planning import Plan, TablePlan
from lma.nn import EmbeddingBagCollection, EmbeddingBagConfig, SharedMemory
from lma.signatures import Section, SignatureTable

# Tokens per field of Criteo Kaggle.
CARDINALITIES = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992,
    5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
NUM_CODES, CODE_BITS = 8, 8


def sizes(scale: int) -> list[int]:
    """Cardinalities divided by `scale`, at least 3."""
    return [max(3, size // scale) for size in CARDINALITIES]


def draw_ids(tokens: list[int], batch: int, popularity: str, seed: int) -> Tensor:
    """Ids [batch, features]: "uniform", or "zipf" with exponent 1 (log-uniform ranks)."""
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for size in tokens:
        u = torch.rand(batch, generator=generator, dtype=torch.float64)
        rank = size * u if popularity == "uniform" else (size + 1.0) ** u - 1.0
        columns.append(rank.long().clamp(max=size - 1))
    return torch.stack(columns, 1)


def lma_collection(
    tokens: list[int],
    dim: int,
    block: int,
    compression: float,
    kind: str,
    signed: float = 0.5,
    device: torch.device | str | None = None,
) -> EmbeddingBagCollection:
    """A collection whose weights are 1 / `compression` of the full tables'.

    The more frequent tokens of every table, a share of `signed`, have signatures: "random" codes,
    or "learned" ones that read one codebook per table and chunk.
    """
    names = [f"C{i + 1}" for i in range(len(tokens))]
    generator = torch.Generator().manual_seed(0)
    sections = [
        Section(n, kind, "context", NUM_CODES, CODE_BITS, math.ceil(s * signed))
        for n, s in zip(names, tokens, strict=True)
    ]
    size = sum(s.num_slots * s.row_bytes for s in sections) + 2
    codes = torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8)
    signatures = SignatureTable(sections, codes)
    blocks = max(1, int(sum(tokens) * dim / compression) // block)
    plan = Plan(
        tuple(TablePlan(s.table, s.num_signed) for s in sections),
        blocks, 0, block, 2, NUM_CODES, CODE_BITS,
    )  # fmt: skip
    tables = [Table(n, s, dim) for n, s in zip(names, tokens, strict=True)]
    allocation = LmaAllocation(tables, plan, signatures, 0)
    memory = SharedMemory(tables, allocation=allocation, device=device)
    configs = [EmbeddingBagConfig(s, dim, n) for n, s in zip(names, tokens, strict=True)]
    return EmbeddingBagCollection(configs, memory=memory).to(device)
