"""SimHash codes of vectors that the user brings: text or image embeddings of movies, ads, shops.

A bit is the side of a random hyperplane on which a vector lies; two vectors at angle theta agree
on it with probability 1 - theta / pi (Charikar 2002). A code of b bits agrees with probability
(1 - theta / pi)^b, which is the similarity psi of the codes. Tokens get a meaning before their
first click.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lma.hashing import HASH_VERSION, combine, stream_seed
from lma.signatures.config import SignatureConfig
from lma.signatures.merging import check_mergeable
from lma.signatures.row_batch import check_ids
from lma.signatures.sections import SectionParts, make_table
from lma.signatures.table import SignatureTable
from lma.signatures.tokens import KeyedTokens, RankedTokens, Tokens

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

STREAM_PLANE = (1 << 20) + 64
WHO = "SimHashBuilder"


class SimHashBuilder:
    """Random codes of given vectors; vectors of one length all lie in one space.

    Args:
        tables: Names of the tables, in the order their sections get.
        dim: Length of the vectors.
        num_codes: Codes per token.
        code_bits: Hyperplanes per code, 1 to 16.
        seed: Seed of the hyperplanes.

    Memory: `2 * num_codes + 8` bytes per token; vectors are not kept.
    """

    def __init__(
        self,
        tables: Sequence[str],
        dim: int,
        *,
        num_codes: int = 8,
        code_bits: int = 8,
        seed: int = 0,
    ) -> None:
        if isinstance(tables, str):
            raise TypeError(f"{WHO}: tables must be a list of names, found {tables!r}")
        if dim < 1:
            raise ValueError(f"{WHO}: dim must be at least 1, found {dim}")
        self.config = SignatureConfig(
            "vectors", num_codes=num_codes, code_bits=code_bits, min_support=1, seed=seed
        )
        self.dim = dim
        self.hash_version = HASH_VERSION
        self._planes = _gaussians(dim, num_codes * code_bits, seed)
        self._ids: dict[str, list[I64]] = {name: [] for name in tables}
        self._codes: dict[str, list[npt.NDArray[np.uint16]]] = {name: [] for name in tables}

    def update(self, table: str, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Take in the vectors of some tokens; a token given again gets its latest codes.

        Args:
            table: The tokens' table.
            ids: int64 [n].
            vectors: Finite floats [n, dim]; their length does not matter, only their direction.
        """
        if table not in self._ids:
            raise ValueError(f"{WHO}.update: no table {table!r}; there are {list(self._ids)}")
        tokens = check_ids(ids, f"{WHO}.update: ids")
        x = np.asarray(vectors, dtype=np.float64)
        if tokens.ndim != 1:
            raise ValueError(f"{WHO}.update: ids must be [n], found shape {list(tokens.shape)}")
        if x.shape != (len(tokens), self.dim) or not np.isfinite(x).all():
            raise ValueError(
                f"{WHO}.update: vectors must be finite, [{len(tokens)}, {self.dim}], found shape "
                f"{list(x.shape)} with {int((~np.isfinite(x)).sum())} values not finite"
            )
        self._ids[table].append(tokens.copy())
        self._codes[table].append(self.encode(x))

    def encode(self, vectors: F64) -> npt.NDArray[np.uint16]:
        """Codes of vectors [n, dim], uint16 [n, num_codes]; bit b of a code is its plane b."""
        bits = (vectors @ self._planes > 0).reshape(
            len(vectors), self.config.num_codes, self.config.code_bits
        )
        weights = 1 << np.arange(self.config.code_bits, dtype=np.uint16)
        return np.asarray((bits * weights).sum(-1, dtype=np.uint16))

    def merge(self, other: SimHashBuilder) -> SimHashBuilder:
        """Add what another builder was given; its codes win where both have some. Returns self."""
        check_mergeable(self, other)
        for name in self._ids:
            self._ids[name] += other._ids[name]
            self._codes[name] += other._codes[name]
        return self

    def settings(self) -> dict[str, object]:
        """What builders must have in common to be merged."""
        return {
            "config": self.config,
            "dim": self.dim,
            "tables": list(self._ids),
            "hash_version": self.hash_version,
        }

    def finish(self, *, keep_ids: bool = False) -> SignatureTable:
        """Freeze: a `prefix` index where the ids are 0, 1, ... without a gap, else fingerprints.

        Args:
            keep_ids: Also keep the ids of tables of any ids, 8 bytes per token in a file of their
                own that no model loads, for `neighbours`.
        """
        parts = []
        for name, pieces in self._ids.items():
            if not sum(map(len, pieces)):
                continue
            # The first of the reversed order is the latest.
            given = np.concatenate(pieces)[::-1]
            ids, first = np.unique(given, return_index=True)
            codes = np.concatenate(self._codes[name])[::-1][first]
            dense = ids[0] == 0 and ids[-1] == len(ids) - 1
            tokens: Tokens = (
                RankedTokens(name, len(ids), len(ids)) if dense else KeyedTokens(name, ids)
            )
            parts.append(SectionParts.of(tokens, ids, codes, self.config, keep_ids=keep_ids))
        return make_table(parts, self.config.seed, {"vectors": self.dim})


def _gaussians(dim: int, count: int, seed: int) -> F64:
    """Standard normal numbers [dim, count] from our own hashes, by Box and Muller's transform."""
    number = np.arange(dim * count, dtype=np.int64)
    uniform = [
        ((combine(stream_seed(seed, STREAM_PLANE + i), number) >> np.uint64(11)) + 0.5) * 2.0**-53
        for i in (0, 1)
    ]
    normal = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1])
    return np.asarray(normal.reshape(dim, count))


__all__ = ["SimHashBuilder"]
