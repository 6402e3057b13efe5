"""`fit_signatures`: a log in, a `SignatureTable` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lma.signatures.config import SignatureConfig
from lma.signatures.minhash import MinHashBuilder
from lma.signatures.table import SignatureTable

BATCH_ROWS = 65_536


def fit_signatures(
    log: Any,
    config: SignatureConfig | None = None,
    *,
    num_signed: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SignatureTable:
    """Build signatures from the training rows of a log, in one pass.

    Args:
        log: A prepared `lma.data.Dataset`, or anything with `schema.features` (each with `name`
            and `num_embeddings`), `num_rows("train")` and `batches("train", batch_size)` that
            yields objects with `values`, `offsets` and `labels`.
        config: Which similarity, how many codes; `SignatureConfig()` unless given.
        num_signed: Tokens to sign per table, as a `Plan` decides.
        progress: Called as progress(rows done, rows in all).
    """
    config = config or SignatureConfig()
    sizes = {}
    for feature in log.schema.features:
        if feature.num_embeddings is None:
            raise ValueError(
                f"fit_signatures: feature {feature.name!r} has hashed ids and no vocabulary; "
                "prepare the log with dictionary ids"
            )
        sizes[feature.name] = feature.num_embeddings
    builder = MinHashBuilder(sizes, config, num_signed)
    total, done = log.num_rows("train"), 0
    for batch in log.batches("train", BATCH_ROWS):
        builder.update(
            batch.values,
            batch.offsets,
            batch.labels,
            total_rows=total,
        )
        done += len(batch.labels)
        if progress is not None:
            progress(done, total)
    return builder.finish(num_signed)
