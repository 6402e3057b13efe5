"""What the passes over a log add up per token, as integers: the same in any order of adding."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int8]
# Log rows per token: float64, or float32 where there are many tokens (exact up to 2^24).
Rows: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# Tokens of more rows add up in 64 bits: in 32 bits their rows would be rounded too coarsely.
HEAVY_ROWS = 1 << 16
BLOCK = 1 << 14  # tokens worked on at a time


@dataclasses.dataclass
class ContextSums:
    """Sums of a table's tokens; reads like a float32 matrix [tokens, dim].

    A row adds to a token at most `bound` in each dimension, n rows at most n * bound. A sum is kept
    as a multiple of the power of two that holds this below 2^30 (below 2^62 in 64 bits): of at
    least n * bound / 2^30 and at most four times that. Every row is rounded once, so a mean over
    rows is off by at most half a multiple: in 32 bits, with n <= 2^16, by `bound` / 2^13.

    Attributes:
        exponents: A token's sum is a multiple of 2^-exponent, int8 [tokens].
        wide: The leading tokens' sums, as many as to the last of `HEAVY_ROWS` rows or more,
            int64 [heavy, dim].
        narrow: The others', int32 [tokens - heavy, dim].
    """

    exponents: I8
    wide: I64
    narrow: I32

    @classmethod
    def zeros(cls, supports: npt.NDArray[np.integer], dim: int) -> ContextSums:
        """Of tokens with these supports, most frequent first."""
        heavy = np.flatnonzero(supports > HEAVY_ROWS)
        count = int(heavy[-1]) + 1 if len(heavy) else 0
        return cls(
            np.zeros(len(supports), np.int8),
            np.zeros((count, dim), np.int64),
            np.zeros((len(supports) - count, dim), np.int32),
        )

    def restart(self, rows: Rows, bound: float) -> None:
        """Zero, with the exponents of a pass in which token v takes part in `rows[v]` rows."""
        # Block by block: arrays of all tokens would be the peak of a builder's memory.
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            # frexp: x = m 2^k with m < 1.
            own = np.frexp(np.maximum(rows[block], 1.0))[1] + np.frexp(bound)[1]
            room = np.full(len(own), 30)
            room[: max(len(self.wide) - start, 0)] = 62
            self.exponents[block] = np.clip(room - own, -128, 127)
        self.wide[:] = 0
        self.narrow[:] = 0

    def twin(self) -> ContextSums:
        """The same exponents, nothing added yet."""
        return ContextSums(self.exponents, np.zeros_like(self.wide), np.zeros_like(self.narrow))

    def merge(self, other: ContextSums) -> None:
        """Add a twin's sums."""
        self.wide += other.wide
        self.narrow += other.narrow

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, dim)."""
        return len(self.exponents), self.narrow.shape[1]

    def __len__(self) -> int:
        return len(self.exponents)

    def __getitem__(self, where: slice) -> F32:
        start, stop, _ = where.indices(len(self))
        heavy = len(self.wide)
        low = self.narrow[max(start - heavy, 0) : max(stop - heavy, 0)]
        sums = np.concatenate([self.wide[start:stop], low], dtype=np.float64, casting="unsafe")
        exponents = -self.exponents[start:stop, None].astype(np.int32)
        return np.asarray(np.ldexp(sums, exponents, out=sums), dtype=np.float32)


__all__ = ["ContextSums", "Rows"]
