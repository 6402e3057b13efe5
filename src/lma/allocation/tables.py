"""What is to be stored, and in how many bytes: tables and budgets."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Sequence

from lma.errors import BudgetError, UnsupportedError
from lma.kernels.reference.quantised import group_blocks

FLOAT_BYTES = 4
SCALE_BYTES = 2
PRECISIONS = {"float32": 32, "int8": 8, "int4": 4}  # bits of a served weight
REFERENCE_DIM = 16
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclasses.dataclass(frozen=True)
class Table:
    """One token space with vectors of its own.

    Attributes:
        name: Its name; part of every token's key.
        num_embeddings: Ids are 0 ... num_embeddings - 1; None: any int64 is an id.
        embedding_dim: Floats of one vector.
    """

    name: str
    num_embeddings: int | None
    embedding_dim: int

    def __post_init__(self) -> None:
        if self.num_embeddings is not None and self.num_embeddings < 0:
            raise ValueError(
                f"table {self.name!r}: num_embeddings must be >= 0, found {self.num_embeddings}"
            )
        if self.embedding_dim < 1:
            raise ValueError(
                f"table {self.name!r}: embedding_dim must be >= 1, found {self.embedding_dim}"
            )


@dataclasses.dataclass(frozen=True)
class Budget:
    """A number of bytes, and what it is to pay for.

    Attributes:
        bytes: How many.
        counts: "serving" (weights + signatures + index, our measure) or "weights" (floats alone,
            the paper's measure).
        precision: What a served weight is kept in: "float32", "int8" or "int4", the last two
            with a float16 scale per group of 64.
    """

    bytes: int
    counts: str = "serving"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"Budget.precision: one of {tuple(PRECISIONS)}, found {self.precision!r}"
            )
        if self.counts not in ("serving", "weights"):
            raise ValueError(f"Budget.counts: 'serving' or 'weights', found {self.counts!r}")
        if self.bytes <= 0:
            raise BudgetError(f"a budget must be more than 0 bytes, found {self.bytes}")

    def weight_bytes(self, overhead: int) -> int:
        """Bytes left for weights after `overhead` bytes of signatures and index."""
        return self.bytes - overhead if self.counts == "serving" else self.bytes

    def float_bytes(self, block_size: int = 1) -> float:
        """Bytes of one float of a memory of such blocks, its share of a scale included."""
        bits = PRECISIONS[self.precision]
        if bits == 8 * FLOAT_BYTES:
            return FLOAT_BYTES
        return bits / 8 + SCALE_BYTES / (group_blocks(block_size) * block_size)

    def floats(self, overhead: int, block_size: int = 1) -> int:
        """Floats that the budget pays for after `overhead` bytes of signatures and index."""
        room = self.weight_bytes(overhead) - self.slack_bytes
        return max(0, int(room // self.float_bytes(block_size)))

    @property
    def slack_bytes(self) -> int:
        """What rounding may cost at a memory's end: the last group's scale and half a byte."""
        return 0 if self.precision == "float32" else SCALE_BYTES + 1

    @classmethod
    def of(
        cls,
        budget: int | str | Budget | None,
        compression: float | None,
        num_tokens: int | None,
        reference_dim: int = REFERENCE_DIM,
    ) -> Budget | None:
        """From what a user says: bytes (`64_000_000`, "64MB"), "16x", or `compression=16`.

        A compression is relative to `num_tokens * reference_dim * 4` bytes.
        """
        if budget is not None and compression is not None:
            raise ValueError("give either budget or compression, not both")
        if isinstance(budget, Budget):
            return budget
        if isinstance(budget, str) and budget.strip().lower().endswith("x"):
            try:
                compression, budget = float(budget.strip()[:-1]), None
            except ValueError:
                raise ValueError(f"budget {budget!r}: expected a number before 'x'") from None
        if compression is not None:
            if not compression > 0:
                raise ValueError(f"compression must be above 0, found {compression}")
            if num_tokens is None:
                raise ValueError(
                    "compression needs the number of tokens, and a table has "
                    "num_embeddings=None; give the budget in bytes, such as '64MB'"
                )
            return cls(max(1, round(num_tokens * reference_dim * FLOAT_BYTES / compression)))
        if budget is None:
            return None
        try:
            size = parse_bytes(budget)
        except ValueError as error:
            raise ValueError(f"budget {error}; or '16x', a share of the full tables") from None
        return cls(size)


def parse_bytes(text: int | str) -> int:
    """Bytes of "64MB" (10^6), "1.5GB", "512KiB" or of a plain number.

    >>> parse_bytes("1.5MB")
    1500000
    """
    if not isinstance(text, str):
        try:
            return operator.index(text)
        except TypeError:
            raise TypeError(
                f"bytes: expected a whole number or a text such as '64MB', found {text!r}"
            ) from None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(
            f"bytes: expected a number with one of KB, MB, GB, TB, KiB, MiB, GiB, found {text!r}"
        )
    return round(float(match[1]) * _UNITS[match[2]])


def count_tokens(tables: Sequence[Table]) -> int | None:
    """Tokens of all tables, or None where one is unbounded."""
    sizes = [table.num_embeddings for table in tables]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def shared_dim(tables: Sequence[Table], method: str) -> int:
    """The dimension all tables have; methods that store whole rows in one memory need it."""
    dims = sorted({table.embedding_dim for table in tables})
    if len(dims) != 1:
        raise ValueError(f"{method} needs one embedding_dim for all tables, found {dims}")
    return dims[0]


def sizes_of(tables: Sequence[Table], method: str) -> list[int]:
    """`num_embeddings` of all tables; an error where one is unbounded."""
    sizes = []
    for table in tables:
        if table.num_embeddings is None:
            raise UnsupportedError(
                f"{method} needs num_embeddings, and table {table.name!r} has None"
            )
        sizes.append(table.num_embeddings)
    return sizes
