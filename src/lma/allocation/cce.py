"""Clustered compositional embeddings (Tsang & Ahle 2023, "Clustering the Sketch", 2210.05974)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lma.allocation.base import Allocation, Group
from lma.allocation.cce_clustering import Clustering
from lma.allocation.tables import FLOAT_BYTES, Budget, Table, shared_dim, sizes_of
from lma.errors import BudgetError
from lma.hashing import stream_seeds, token_keys_t
from lma.kernels.layout import Column
from lma.kernels.reference.addresses import hash_blocks, read_codes
from lma.signatures.stats import LogStats
from lma.signatures.table import CODE_PADDING, SignatureTable, pack_codes

MOST_ROWS = 1 << 16  # pointers of up to 16 bits
SETTINGS = 8  # int64 numbers in the header
TOKENS_AT_ONCE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Cce:
    """Column j of a vector = cluster row `pointer_j(v)` + helper row `hash_j(v)`.

    Every table has `rows` cluster rows and `rows` helper rows per column, one number for all
    tables, the largest that fits; a table that would take no more as it is stays whole. The
    pointers, one per token and column, are learned: between epochs, k-means of all tokens' columns.

    Attributes:
        columns: Parts that a vector is cut into at most; halved while the pointers of so many
            leave less than half of the budget to the rows.
        cluster_epochs: Cluster after each of the first so many epochs.
        seed: Of the first pointers, the helpers' hash functions and k-means.
    """

    name: ClassVar[str] = "cce"
    columns: int = 4
    cluster_epochs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise ValueError(f"Cce.columns must be at least 1, found {self.columns}")

    def allocate(
        self,
        tables: Sequence[Table],
        budget: Budget | None,
        *,
        signatures: SignatureTable | None = None,
        stats: LogStats | None = None,
    ) -> CceAllocation:
        """The most rows per table that the budget pays for, pointers included."""
        if budget is None:
            raise ValueError("cce needs a budget or a compression")
        dim, sizes = shared_dim(tables, "cce"), sizes_of(tables, "cce")
        if dim % self.columns:
            raise ValueError(f"Cce.columns must divide embedding_dim {dim}, found {self.columns}")
        columns = self.columns
        rows, weights = _most_rows(sizes, dim, columns, budget)
        while weights < budget.bytes / 2 and columns % 2 == 0:
            columns //= 2
            rows, weights = _most_rows(sizes, dim, columns, budget)
        if rows < 2:
            raise BudgetError(
                f"cce: {budget.bytes} bytes hold no two rows of {dim} floats per table beside "
                f"one pointer for each of {sum(sizes)} tokens"
            )
        return CceAllocation(tables, rows, columns, self.cluster_epochs, self.seed)


def pointer_bytes(size: int, columns: int, rows: int) -> int:
    """Bytes of a table's pointers, packed without gaps."""
    return (size * columns * (rows - 1).bit_length() + 7) // 8


def is_whole(size: int, dim: int, columns: int, rows: int) -> bool:
    """Whether a table's own rows take no more than twice `rows` and the pointers."""
    row = dim * FLOAT_BYTES
    return size * row <= 2 * rows * row + pointer_bytes(size, columns, rows)


def _most_rows(sizes: Sequence[int], dim: int, columns: int, budget: Budget) -> tuple[int, int]:
    """The most rows that fit, 0 where none do, and the bytes of all weights then."""

    def weights_and_pointers(rows: int) -> tuple[int, int]:
        whole = [is_whole(size, dim, columns, rows) for size in sizes]
        held = sum(s if own else 2 * rows for s, own in zip(sizes, whole, strict=True))
        pointed = [s for s, own in zip(sizes, whole, strict=True) if not own]
        pointers = sum(pointer_bytes(size, columns, rows) for size in pointed)
        return math.ceil(held * dim * budget.float_bytes(dim // columns)), pointers

    low, high = 0, max(2, min(MOST_ROWS, max(sizes, default=0)))
    while low < high:
        rows = (low + high + 1) // 2
        weights, pointers = weights_and_pointers(rows)
        overhead = pointers + CODE_PADDING + 8 * (SETTINGS + columns)
        if weights <= budget.weight_bytes(overhead):
            low = rows
        else:
            high = rows - 1
    return low, weights_and_pointers(low)[0] if low else 0


class CceAllocation(Allocation):
    """`blocks` are the cluster's, or a whole table's own; the helper's are added to them.

    Blocks of a clustered table: column j's cluster rows from `base + j * rows` on, its helper
    rows from `base + (columns + j) * rows` on. A table's pointers are packed bit after bit.
    """

    pointers: Tensor
    seeds: Tensor
    bases: Tensor
    first_bytes: Tensor
    whole: Tensor
    packing: Tensor

    def __init__(
        self, tables: Sequence[Table], rows: int, columns: int, cluster_epochs: int, seed: int
    ) -> None:
        dim, sizes = shared_dim(tables, "cce"), sizes_of(tables, "cce")
        whole = [is_whole(size, dim, columns, rows) for size in sizes]
        counts = [
            (size if own else 2 * rows) * columns for size, own in zip(sizes, whole, strict=True)
        ]
        super().__init__(
            tables,
            sum(counts),
            dim // columns,
            {"seed": seed, "method": 11, "rows": rows, "columns": columns},
        )
        self.arguments = {
            "rows": rows, "columns": columns, "cluster_epochs": cluster_epochs, "seed": seed
        }  # fmt: skip
        self.rows, self.columns, self.cluster_epochs = rows, columns, cluster_epochs
        self.pointer_bits = (rows - 1).bit_length()
        self.clustered = [number for number, own in enumerate(whole) if not own]
        self._derived("bases", [sum(counts[:i]) for i in range(len(counts))])
        self._derived("whole", [int(own) for own in whole])
        pairs = zip(sizes, whole, strict=True)
        widths = [0 if own else pointer_bytes(size, columns, rows) for size, own in pairs]
        self._derived("first_bytes", [sum(widths[:i]) for i in range(len(widths))])
        # Of all columns of a layout row, reading a pointer takes its width alone.
        self._derived("packing", torch.eye(len(Column))[Column.CODE_BITS] * self.pointer_bits)
        seeds = torch.from_numpy(stream_seeds(seed, 2 * columns).view("int64"))
        # The helpers' hash functions: new ones after every clustering, hence saved.
        self.register_buffer("seeds", seeds[columns:].clone())
        self.register_buffer("pointers", torch.zeros(sum(widths) + CODE_PADDING, dtype=torch.uint8))
        for number in self.clustered:
            for start in range(0, sizes[number], TOKENS_AT_ONCE):
                ids = torch.arange(start, min(start + TOKENS_AT_ONCE, sizes[number]))
                pointers = self.hashed(seeds[:columns], ids, self.salts[number])
                self.point(number, ids, pointers.numpy())

    def hashed(self, seeds: Tensor, ids: Tensor, salts: Tensor) -> Tensor:
        """range(hash(seed_j, key), rows): int64 [..., columns]."""
        return hash_blocks(token_keys_t(salts, ids), seeds, self.rows)

    def point(self, number: int, ids: Tensor, pointers: npt.NDArray[np.int64]) -> None:
        """Write the pointers [ids, columns] of consecutive ids of a clustered table.

        The first id is a multiple of eight, so that its pointers begin with a byte.
        """
        first = int(self.first_bytes[number]) + int(ids[0]) * self.columns * self.pointer_bits // 8
        packed = pack_codes(pointers.reshape(1, -1), self.pointer_bits)
        self.pointers[first : first + len(packed)] = packed.to(self.pointers.device)

    def blocks(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """Cluster blocks, or a whole table's own: int64 [..., columns]."""
        column = torch.arange(self.columns, device=ids.device)
        base = self.bases[numbers].unsqueeze(-1)
        own = base + ids.unsqueeze(-1) * self.columns + column
        if not self.clustered:
            return own
        whole = self.whole[numbers] == 1
        slot = ids.masked_fill(whole, 0).unsqueeze(-1)
        first = self.first_bytes[numbers].masked_fill(whole, 0).unsqueeze(-1)
        which = slot * self.columns + column
        pointer = read_codes(self.pointers, first, torch.zeros_like(slot), self.packing, which)
        return torch.where(whole.unsqueeze(-1), own, base + column * self.rows + pointer)

    def helper_blocks(self, ids: Tensor, numbers: Tensor) -> Tensor:
        """Helper blocks of tokens of clustered tables; of others, blocks of no meaning."""
        row = self.hashed(self.seeds, ids, self.salts[numbers])
        column = torch.arange(self.columns, 2 * self.columns, device=ids.device) * self.rows
        block = self.bases[numbers].unsqueeze(-1) + column + row
        return block.masked_fill((self.whole[numbers] == 1).unsqueeze(-1), 0)

    def vectors(
        self, weight: Tensor, ids: Tensor, numbers: Tensor, group: Group, sparse: bool
    ) -> Tensor:
        """Sums of the two rows, column by column."""
        own = F.embedding(self.blocks(ids, numbers, group), weight, sparse=sparse)
        helper = F.embedding(self.helper_blocks(ids, numbers), weight, sparse=sparse)
        whole = (self.whole[numbers] == 1)[..., None, None]
        return (own + helper.masked_fill(whole, 0.0)).flatten(-2)

    @property
    def whole_rows(self) -> bool:
        """Never: a vector is a sum."""
        return False

    def reset_weight(self, weight: Tensor, std: float) -> None:
        """Every vector N(0, std^2): the two that are added have half the variance each."""
        nn.init.normal_(weight, std=std)
        for number in self.clustered:
            first = int(self.bases[number])
            weight.data[first : first + 2 * self.columns * self.rows] *= 0.5**0.5

    def adaptation(self) -> Clustering:
        """k-means between epochs."""
        return Clustering(self)
