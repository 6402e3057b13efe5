"""Signatures with chosen codes, for tests that need to know every code."""

from collections.abc import Mapping

import numpy as np
import torch

from lma.signatures import Section, SignatureTable
from lma.signatures.table import pack_codes

Codes = np.ndarray


def signatures_of(
    codes: Mapping[str, Codes],
    *,
    code_bits: int = 16,
    seed: int = 0,
    similarity: str = "context",
    kinds: Mapping[str, str] | None = None,
) -> SignatureTable:
    """A table whose token i of table t has the codes `codes[t][i]`, prefix index."""
    sections, parts = [], []
    for table, array in codes.items():
        kind = (kinds or {}).get(table, "random")
        sections.append(Section(table, kind, similarity, array.shape[1], code_bits, len(array)))
        parts.append(pack_codes(array, code_bits))
    return SignatureTable(
        sections, torch.cat([*parts, torch.zeros(2, dtype=torch.uint8)]), seed=seed
    )


def random_codes(
    sizes: Mapping[str, int], num_codes: int = 8, code_bits: int = 16, seed: int = 0
) -> dict[str, Codes]:
    """Codes drawn at random, shape (size, num_codes), for every table of at least one token."""
    generator = np.random.default_rng(seed)
    return {
        table: generator.integers(0, 1 << code_bits, (size, num_codes))
        for table, size in sizes.items()
        if size
    }


def random_signatures(
    sizes: Mapping[str, int],
    num_codes: int = 8,
    code_bits: int = 16,
    seed: int = 0,
    similarity: str = "context",
) -> SignatureTable:
    """Signatures with random codes for the first `sizes[t]` tokens of every table."""
    codes = random_codes(sizes, num_codes, code_bits, seed)
    return signatures_of(codes, code_bits=code_bits, seed=seed, similarity=similarity)
