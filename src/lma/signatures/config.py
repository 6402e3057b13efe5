"""How signatures are made: one frozen config, to and from TOML."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterable

SIMILARITIES = ("rows", "context", "labelled_context", "positive_context", "vectors")
KINDS = ("random", "learned")
QUANTISERS = ("product", "residual")
# (num_codes, code_bits) of a kind where none are given.
DEFAULT_CODES = {"random": (8, 16), "learned": (4, 8)}
MOST_LEARNED_BITS = 12


@dataclasses.dataclass(frozen=True)
class SignatureConfig:
    """Settings of signatures.

    Attributes:
        similarity: What makes two tokens alike: "rows" (the log rows a token occurs in; SCMA,
            Desai et al. 2021), "context" (the tokens it meets in its rows), "labelled_context"
            (such tokens together with the row's label) or "positive_context" (the tokens it
            meets in rows of label 1; for logs whose negatives are sampled), or "vectors" (given
            vectors: `SimHashBuilder`'s own). Learned codes take contexts only, and read
            "labelled_context" as label residuals.
        num_codes: Codes per signed token; 0: the kind's default, 8 random or 4 learned ones.
        code_bits: Bits of one code; 0: the kind's default, 16 random or 8 learned ones. Random
            codes below 16 bits collide often once a field has more than some ten thousand
            context tokens.
        sample_rows: Rows of the log to read, chosen by a hash of their numbers; None reads all.
            The paper reads 125 000 for "rows". Random codes only.
        min_support: Tokens seen in fewer (sampled) rows get no signature.
        seed: Seed of the hash functions and of k-means.
        kind: "random" (min-hash) or "learned" (quantised context vectors).
        dim: Dimension of the context vectors that learned codes quantise.
        context_fields: The fields whose tokens count as met; () all. A field that everything
            meets alike, such as a weekday, tells tokens apart by chance only. Tokens of the
            other fields get signatures all the same, from what they meet in these. Learned codes
            find their directions on all fields, and add up these in the last pass.
        passes: Passes over the log that project it, after the one that counts tokens and keeps
            rows to iterate on; more than one sharpen the vectors by rows that were not kept.
        quantiser: "product" (each code stands for some dimensions) or "residual" (each code
            stands for what the ones before it left over).
        shrinkage: Rows of an average token that are mixed into every context vector, so that
            the few labels of a rare token do not show in its codes.
    """

    similarity: str = "labelled_context"
    num_codes: int = 0
    code_bits: int = 0
    sample_rows: int | None = None
    min_support: int = 2
    seed: int = 0
    kind: str = "random"
    dim: int = 32
    passes: int = 1
    quantiser: str = "product"
    shrinkage: float = 50.0
    context_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in (
            ("similarity", SIMILARITIES), ("kind", KINDS), ("quantiser", QUANTISERS)
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"SignatureConfig.{name} must be one of {choices}, "
                    f"found {getattr(self, name)!r}"
                )
        for name in ("num_codes", "code_bits", "min_support", "seed", "dim", "passes"):
            self._take_integer(name)
        if self.sample_rows is not None:
            self._take_integer("sample_rows")
        codes, bits = DEFAULT_CODES[self.kind]
        object.__setattr__(self, "num_codes", self.num_codes or codes)
        object.__setattr__(self, "code_bits", self.code_bits or bits)
        limits = {
            "num_codes": (1, 255), "code_bits": (1, 16), "dim": (1, 1024), "passes": (1, 10)
        }  # fmt: skip
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be {least} to {most}, found {getattr(self, name)}")
        if self.min_support < 1:
            raise ValueError(f"min_support must be at least 1, found {self.min_support}")
        if self.sample_rows is not None and self.sample_rows < 1:
            raise ValueError(f"sample_rows must be at least 1, found {self.sample_rows}")
        if isinstance(self.context_fields, str):
            raise TypeError(f"context_fields takes a list of names, found {self.context_fields!r}")
        object.__setattr__(self, "context_fields", tuple(self.context_fields))
        if self.context_fields and self.similarity in ("rows", "vectors"):
            raise ValueError(
                f"context_fields must be empty where similarity is {self.similarity!r}, which has "
                f"no contexts, found {self.context_fields}"
            )
        if not 0 <= self.shrinkage < float("inf"):
            raise ValueError(f"shrinkage must be a number of rows >= 0, found {self.shrinkage}")
        if self.kind == "learned":
            self._check_learned()

    def _take_integer(self, name: str) -> None:
        value = getattr(self, name)
        try:
            object.__setattr__(self, name, operator.index(value))
        except TypeError:
            raise TypeError(f"SignatureConfig.{name} must be an integer, found {value!r}") from None

    def _check_learned(self) -> None:
        if self.similarity in ("rows", "vectors"):
            raise ValueError(
                f"similarity {self.similarity!r} has no learned codes, which quantise contexts; "
                "use 'labelled_context', 'positive_context' or 'context'"
            )
        if self.code_bits > MOST_LEARNED_BITS:
            raise ValueError(
                f"code_bits must be at most {MOST_LEARNED_BITS} where kind is 'learned' (k-means "
                f"with 2^code_bits centroids), found {self.code_bits}"
            )
        if self.quantiser == "product" and self.num_codes > self.dim:
            raise ValueError(
                f"num_codes must be at most dim = {self.dim} where quantiser is 'product', found "
                f"{self.num_codes}; raise dim or use quantiser='residual'"
            )
        if self.sample_rows is not None:
            raise ValueError("sample_rows must be None where kind is 'learned': all rows are read")

    def told(self, tables: Iterable[str]) -> list[bool]:
        """Whether the tokens of each table count as met by others.

        Raises:
            ValueError: `context_fields` names none of the tables; says which are there.
        """
        names = list(tables)
        for field in self.context_fields:
            if field not in names:
                raise ValueError(f"context_fields: no field {field!r} among {names}")
        return [not self.context_fields or name in self.context_fields for name in names]

    def support_to_sign(self, rows: int) -> int:
        """Support in a log of `rows` rows from which a token is worth a signature.

        `min_support`; of a sample, the support of which a quarter of `min_support` rows is
        expected there. Rarer tokens would nearly all get codes of their own key, which share
        places by chance alone, as a token without a signature does for nothing.
        """
        if self.sample_rows is None or self.sample_rows >= rows:
            return self.min_support
        return max(self.min_support, math.ceil(self.min_support * rows / self.sample_rows / 4))

    @property
    def shares_across_tables(self) -> bool:
        """Whether tokens of different tables may share places by similarity.

        Rows are common to all tables and, one value per field, the only thing that tokens of
        *different* fields can have in common; contexts leave out the token's own field, so
        equal contexts of different fields mean nothing.
        """
        return self.similarity == "rows"
