"""One table's part of a `SignatureTable`: what its codes are and how they are found."""

from __future__ import annotations

import dataclasses

from lma.kernels.reference.addresses import LANES


@dataclasses.dataclass(frozen=True)
class Section:
    """One table's part of a `SignatureTable`.

    Attributes:
        table: The table's name.
        kind: "random" (min-hash, SimHash) or "learned" (quantised vectors).
        similarity: What the codes estimate: "rows", "context", "labelled_context", ...
        num_codes: Codes per token.
        code_bits: Bits per code, 1 to 16.
        num_signed: Tokens with a signature.
        index: "prefix" (ids below `num_signed` are the signed ones) or "fingerprint".
        num_buckets: Buckets of the fingerprint index, 0 with a prefix.
        num_overflow: Entries of the exact overflow list.
    """

    table: str
    kind: str
    similarity: str
    num_codes: int
    code_bits: int
    num_signed: int
    index: str = "prefix"
    num_buckets: int = 0
    num_overflow: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("random", "learned"):
            raise ValueError(f"Section.kind must be 'random' or 'learned', found {self.kind!r}")
        if self.index not in ("prefix", "fingerprint"):
            raise ValueError(f"Section.index: 'prefix' or 'fingerprint', found {self.index!r}")
        if not 1 <= self.code_bits <= 16:
            raise ValueError(f"code_bits must be 1 to 16, found {self.code_bits}")
        if not 1 <= self.num_codes <= 255:
            raise ValueError(f"num_codes must be 1 to 255, found {self.num_codes}")
        if self.num_signed < 1:
            raise ValueError(f"Section {self.table!r}: num_signed must be >= 1; leave it out")

    @property
    def row_bytes(self) -> int:
        """Bytes of one signature."""
        return (self.num_codes * self.code_bits + 7) // 8

    @property
    def num_slots(self) -> int:
        """Rows of codes held: signed tokens, and with fingerprints the empty lanes too."""
        if self.index == "prefix":
            return self.num_signed
        return self.num_buckets * LANES + self.num_overflow


__all__ = ["Section"]
