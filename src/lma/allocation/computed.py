"""Methods whose vectors are computed from the memory, rather than read from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lma.allocation.base import Allocation, Group
from lma.allocation.tables import Table
from lma.errors import UnsupportedError

# Of one vector. For comparison, the 13-512-256-64-16 bottom MLP of the LMA paper takes 155 136.
MAX_MULTIPLY_ADDS = 1 << 17


class Tokens(NamedTuple):
    """The distinct tokens of one table in one lookup.

    Attributes:
        number: The table.
        ids: Ascending, int64 [n].
        counts: How often each was asked for, int64 [n].
    """

    number: int
    ids: Tensor
    counts: Tensor


class ComputedAllocation(Allocation):
    """A flat memory cut into arrays, from which subclasses `compute` vectors of distinct tokens.

    Args:
        tables: The tables laid out.
        shapes: Shapes of the arrays, in the order in which they lie in the memory.
        settings: As in `Allocation`.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        shapes: Sequence[tuple[int, ...]],
        settings: Mapping[str, int],
    ) -> None:
        self._shapes = tuple(shapes)
        self._sizes = [math.prod(shape) for shape in shapes]
        super().__init__(tables, sum(self._sizes), 1, settings)

    def arrays(self, weight: Tensor) -> list[Tensor]:
        """The memory's arrays, as views of `weight`."""
        # One split: slices would each fill a gradient of the size of the memory.
        parts = torch.split(weight.view(-1), self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def compute(self, arrays: Sequence[Tensor], tokens: Sequence[Tokens]) -> Tensor:
        """Vectors of all `tokens`, one after the other: [total, dim], dtype of `arrays`."""
        raise NotImplementedError

    def vectors(
        self, weight: Tensor, ids: Tensor, numbers: Tensor, group: Group, sparse: bool
    ) -> Tensor:
        """Every distinct token's vector is computed once, in float32 at least."""
        if sparse:
            raise UnsupportedError(
                f"{type(self).__name__} has dense gradients only, as its floats serve many "
                "tokens: use sparse=False"
            )
        flat, owner = ids.reshape(-1), numbers.expand(ids.shape).reshape(-1)
        index, tokens, total = torch.empty_like(flat), [], 0
        for number in torch.unique(owner).tolist():
            mine = owner == number
            found, inverse, counts = torch.unique(
                flat[mine], return_inverse=True, return_counts=True
            )
            index[mine] = inverse + total
            total += len(found)
            tokens.append(Tokens(number, found, counts))
        arrays = self.arrays(weight.to(torch.promote_types(weight.dtype, torch.float32)))
        if tokens:
            out = self.compute(arrays, tokens).index_select(0, index)
        else:
            # Of no tokens, but a part of the graph.
            out = weight[:0].view(0, group[0])
        return out.to(weight.dtype).view(*ids.shape, group[0])

    def locations(self, ids: Tensor, numbers: Tensor, group: Group) -> Tensor:
        """There are none: raises `UnsupportedError`."""
        raise UnsupportedError(
            f"{type(self).__name__} computes vectors: their floats have no places in the memory, "
            "and shared fractions are not defined"
        )

    @property
    def whole_rows(self) -> bool:
        """Never: blocks are single floats of the arrays."""
        return False
