"""Bytes of signatures, and the support threshold that keeps them within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lma.signatures.config import SignatureConfig
from lma.signatures.stats import LogStats

FINGERPRINT_LOAD = 0.9  # what the index holds at least; a budget must not promise more


def signature_bytes(config: SignatureConfig, hashed: bool) -> int:
    """Bytes of one token's codes, and of its fingerprint and its share of empty lanes if hashed."""
    code_bytes = (config.num_codes * config.code_bits + 7) // 8
    return math.ceil((code_bytes + 2) / FINGERPRINT_LOAD) if hashed else code_bytes


def support_threshold(
    stats: LogStats,
    budget_bytes: int,
    config: SignatureConfig,
    sizes: Mapping[str, int | None],
) -> int:
    """The least support s >= `config.min_support` such that all tokens of support >= s fit.

    Args:
        stats: Supports of the log's tokens.
        budget_bytes: Most bytes of codes and index.
        config: Widths of the codes, and the least support of all.
        sizes: `num_embeddings` of every table; None where ids are hashes, found by fingerprints.
    """
    if budget_bytes < 0:
        raise ValueError(f"budget_bytes must be >= 0, found {budget_bytes}")
    costs = {name: signature_bytes(config, sizes[name] is None) for name in stats.tables}
    most = max((table.support_of_rank(0) for table in stats.tables.values()), default=0)
    low, high = config.min_support, max(most + 1, config.min_support)
    # Bytes fall as the threshold rises.
    while low < high:
        middle = (low + high) // 2
        if sum(costs[n] * t.tokens_with(middle) for n, t in stats.tables.items()) <= budget_bytes:
            high = middle
        else:
            low = middle + 1
    return low


def signed_within(
    stats: LogStats,
    budget_bytes: int,
    config: SignatureConfig,
    sizes: Mapping[str, int | None],
) -> dict[str, int]:
    """Tokens to sign per table in a budget: those that reach `support_threshold`."""
    least = support_threshold(stats, budget_bytes, config, sizes)
    return {name: table.tokens_with(least) for name, table in stats.tables.items()}


__all__ = ["signature_bytes", "signed_within", "support_threshold"]
