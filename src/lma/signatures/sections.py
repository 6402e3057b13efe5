"""From a builder's tokens and codes to the sections of a `SignatureTable`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lma.hashing import table_salt
from lma.signatures.config import SignatureConfig
from lma.signatures.fingerprints import FingerprintIndex
from lma.signatures.quantise import Codebooks
from lma.signatures.section import Section
from lma.signatures.table import CODE_PADDING, PACK_BLOCK, SignatureTable, pack_codes
from lma.signatures.tokens import RankedTokens, Tokens

I64 = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class SectionParts:
    """One section and its share of the tensors."""

    section: Section
    codes: Tensor
    fingerprints: Tensor | None = None
    overflow_keys: Tensor | None = None
    codebooks: Codebooks | None = None
    ids: Tensor | None = None

    @classmethod
    def of(
        cls,
        tokens: Tokens,
        ids: I64 | None,
        codes: npt.NDArray[Any],
        config: SignatureConfig,
        codebooks: Codebooks | None = None,
        index: FingerprintIndex | None = None,
        *,
        keep_ids: bool = False,
    ) -> SectionParts:
        """The section of a table.

        Args:
            tokens: Of the table; ranked ones get a `prefix` index, others a `fingerprint` index.
            ids: The tokens to sign; None for ranked ones, which are 0, 1, ...
            codes: One row per token, [tokens, num_codes].
            config: Kind, similarity, widths.
            codebooks: Of learned codes.
            index: Of the ids, where it is made already.
            keep_ids: Whether the table is to know its tokens, where it is not a prefix of them.
        """
        section = Section(
            tokens.name,
            config.kind,
            config.similarity,
            config.num_codes,
            config.code_bits,
            len(codes),
        )
        if isinstance(tokens, RankedTokens) or ids is None:
            return cls(section, pack_codes(codes, config.code_bits), codebooks=codebooks)
        parts = cls.indexed(section, ids, codes, codebooks, index)
        return dataclasses.replace(parts, ids=torch.from_numpy(ids)) if keep_ids else parts

    @classmethod
    def indexed(
        cls,
        section: Section,
        ids: I64,
        codes: npt.NDArray[Any],
        codebooks: Codebooks | None = None,
        index: FingerprintIndex | None = None,
    ) -> SectionParts:
        """As `of`, with a `fingerprint` index of the ids for the section."""
        if index is None:
            index = FingerprintIndex.of_tokens(table_salt(section.table), ids)
        section = dataclasses.replace(
            section,
            num_signed=len(ids),
            index="fingerprint",
            num_buckets=len(index.fingerprints),
            num_overflow=len(index.overflow_keys),
        )
        return cls(
            section,
            _pack_at(codes, index.slots, section),
            torch.from_numpy(index.fingerprints),
            torch.from_numpy(index.overflow_keys),
            codebooks,
        )


def _pack_at(codes: npt.NDArray[Any], slots: npt.NDArray[Any], section: Section) -> Tensor:
    """`pack_codes` of codes that stand at `slots`, block by block; zero in between."""
    rows = np.zeros((section.num_slots, section.row_bytes), np.uint8)
    for start in range(0, len(codes), PACK_BLOCK):
        block = slice(start, start + PACK_BLOCK)
        packed = pack_codes(codes[block], section.code_bits)
        rows[slots[block]] = packed.numpy().reshape(-1, section.row_bytes)
    return torch.from_numpy(rows.reshape(-1))


def make_table(
    parts: Sequence[SectionParts], seed: int, provenance: Mapping[str, Any]
) -> SignatureTable:
    """A `SignatureTable` of sections, with the spare bytes behind their codes."""
    padding = torch.zeros(CODE_PADDING, dtype=torch.uint8)
    fingerprints = [p.fingerprints for p in parts if p.fingerprints is not None]
    overflow = [p.overflow_keys for p in parts if p.overflow_keys is not None]
    return SignatureTable(
        [p.section for p in parts],
        torch.cat([*(p.codes for p in parts), padding]),
        torch.cat(fingerprints) if fingerprints else None,
        torch.cat(overflow) if overflow else None,
        seed=seed,
        provenance=provenance,
        codebooks={p.section.table: p.codebooks for p in parts if p.codebooks is not None},
        ids={p.section.table: p.ids for p in parts if p.ids is not None},
    )


def most_frequent(tokens: Tokens, wanted: int | None, min_support: int) -> I64:
    """Slots of the tokens to sign, most frequent first.

    Args:
        tokens: The table's.
        wanted: How many, at most those there are; None: all that reach `min_support`.
        min_support: Rows in which a token must occur, where `wanted` does not say.
    """
    count = tokens.num_slots
    support = tokens.supports[:count]
    if isinstance(tokens, RankedTokens):
        if wanted is None:
            low = np.nonzero(support < min_support)[0]
            wanted = int(low[0]) if len(low) else count
        return np.arange(min(wanted, count))
    # Ties by id, so that the order in which tokens were met does not matter.
    order = np.lexsort((tokens.ids(), -support))
    if wanted is None:
        wanted = int(np.count_nonzero(support >= min_support))
    return order[:wanted]


__all__ = ["SectionParts", "make_table", "most_frequent"]
