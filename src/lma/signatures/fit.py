"""`fit_signatures`: a log in, a `SignatureTable` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lma.signatures.config import SignatureConfig
from lma.signatures.context import ContextCodeBuilder
from lma.signatures.minhash import MinHashBuilder
from lma.signatures.row_batch import RowBatch
from lma.signatures.support import SupportCounter
from lma.signatures.table import SignatureTable

BATCH_ROWS = 65_536

Progress = Callable[[int, int], None]


def fit_signatures(
    log: Any,
    config: SignatureConfig | None = None,
    *,
    num_signed: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> SignatureTable:
    """Build signatures from the training rows of a log.

    Random codes take one pass over the log, and one more to count tokens where a table's ids are
    hashes (`num_embeddings` None); learned codes take `1 + config.passes`.

    Args:
        log: A prepared `lma.data.Dataset`, or anything with `schema.features` (each with `name`
            and `num_embeddings`), `num_rows("train")` and `batches("train", batch_size)` that
            yields objects with `values`, `offsets` and `labels`.
        config: Which similarity and kind, how many codes; `SignatureConfig()` unless given.
        num_signed: Tokens to sign per table, as a `Plan` decides.
        progress: Called as progress(rows done, rows in all), rows counted once per pass.
    """
    config = config or SignatureConfig()
    if config.kind == "learned":
        return fit_context_codes(log, config, num_signed=num_signed, progress=progress).finish()
    sizes = table_sizes(log)
    hashed = [name for name, size in sizes.items() if size is None]
    tokens: dict[str, npt.NDArray[np.int64]] = {}
    if hashed:
        counters = count_tokens(log, hashed, progress=progress, passes=2)
        for name, counter in counters.items():
            wanted = None if num_signed is None else num_signed.get(name)
            least = config.min_support if wanted is None else 1
            tokens[name] = counter.most_frequent(wanted, least)[0]
    ranked = {n: c for n, c in (num_signed or {}).items() if n not in hashed}
    builder = MinHashBuilder(sizes, config, ranked, tokens=tokens)
    _feed(log, builder, progress, int(bool(hashed)), 1 + bool(hashed))
    return builder.finish(num_signed)


def count_tokens(
    log: Any,
    tables: Sequence[str],
    *,
    max_tokens: int | None = None,
    progress: Progress | None = None,
    passes: int = 1,
) -> dict[str, SupportCounter]:
    """One pass over the training rows that counts the ids of some tables.

    Args:
        log: As `fit_signatures`.
        tables: Names of the features to count.
        max_tokens: Ids to hold per table; None: all, exactly.
        progress: As `fit_signatures`.
        passes: Passes that the caller makes in all, for `progress`.
    """
    names = list(table_sizes(log))
    counters = {name: SupportCounter(name, max_tokens) for name in tables}
    total, done = log.num_rows("train"), 0
    for batch in log.batches("train", BATCH_ROWS):
        rows = RowBatch.of(batch.values, batch.offsets, len(names), "count_tokens")
        for name, counter in counters.items():
            counter.update(rows.values[rows.feature(names.index(name))])
        done += rows.num_rows
        if progress is not None:
            progress(done, passes * total)
    return counters


def fit_context_codes(
    log: Any,
    config: SignatureConfig,
    *,
    num_signed: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> ContextCodeBuilder:
    """The builder of learned codes after all its passes: `finish`, `vectors` and `encode` it.

    Args:
        log, config, num_signed, progress: As `fit_signatures`.
    """
    builder = ContextCodeBuilder(table_sizes(log), config, num_signed)
    for number in range(builder.num_passes):
        _feed(log, builder, progress, number, builder.num_passes)
        builder.next_pass()
    return builder


def table_sizes(log: Any) -> dict[str, int | None]:
    """`num_embeddings` of every feature's table, in order."""
    return {feature.name: feature.num_embeddings for feature in log.schema.features}


def _feed(
    log: Any,
    builder: MinHashBuilder | ContextCodeBuilder,
    progress: Progress | None,
    number: int,
    passes: int,
) -> None:
    """One pass of the training rows into a builder."""
    total = log.num_rows("train")
    done = 0
    for batch in log.batches("train", BATCH_ROWS):
        builder.update(batch.values, batch.offsets, batch.labels, first_row=done, total_rows=total)
        done += len(batch.labels)
        if progress is not None:
            progress(number * total + done, passes * total)


__all__ = ["count_tokens", "fit_context_codes", "fit_signatures", "table_sizes"]
