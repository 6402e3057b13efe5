"""How signatures are made: one frozen config, to and from TOML."""

from __future__ import annotations

import dataclasses

SIMILARITIES = ("rows", "context", "labelled_context")


@dataclasses.dataclass(frozen=True)
class SignatureConfig:
    """Settings of min-hash signatures.

    Attributes:
        similarity: Which sets are compared by Jaccard similarity: "rows" (the log rows a token
            occurs in; SCMA, Desai et al. 2021), "context" (the tokens it meets in its rows) or
            "labelled_context" (pairs of such a token and the row's label).
        num_codes: Codes per signed token.
        code_bits: Bits of one code. Below 16, codes collide often once a field has more than
            some ten thousand context tokens.
        sample_rows: Rows of the log to read, chosen by a hash of their numbers; None reads all.
            The paper reads 125 000 for "rows".
        min_support: Tokens seen in fewer (sampled) rows get no signature.
        seed: Seed of the hash functions.
    """

    similarity: str = "labelled_context"
    num_codes: int = 8
    code_bits: int = 16
    sample_rows: int | None = None
    min_support: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise ValueError(
                f"SignatureConfig.similarity must be one of {SIMILARITIES}, "
                f"found {self.similarity!r}"
            )
        if not 1 <= self.num_codes <= 255:
            raise ValueError(f"num_codes must be 1 to 255, found {self.num_codes}")
        if not 1 <= self.code_bits <= 16:
            raise ValueError(f"code_bits must be 1 to 16, found {self.code_bits}")
        if self.min_support < 1:
            raise ValueError(f"min_support must be at least 1, found {self.min_support}")
        if self.sample_rows is not None and self.sample_rows < 1:
            raise ValueError(f"sample_rows must be at least 1, found {self.sample_rows}")

    @property
    def shares_across_tables(self) -> bool:
        """Whether tokens of different tables may share places by similarity.

        Rows are common to all tables and, one value per field, the only thing that tokens of
        *different* fields can have in common; contexts leave out the token's own field, so
        equal contexts of different fields mean nothing.
        """
        return self.similarity == "rows"
