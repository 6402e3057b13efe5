"""`fit_signatures`: a log in, a `SignatureTable` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lma.signatures.checkpoint import FitCheckpoint
from lma.signatures.config import SignatureConfig
from lma.signatures.context import ContextCodeBuilder
from lma.signatures.passes import FitPasses
from lma.signatures.table import SignatureTable

BATCH_ROWS = 65_536

Progress = Callable[[int, int, int], None]
Stage = Callable[[str], None]


def fit_signatures(
    log: Any,
    config: SignatureConfig | None = None,
    *,
    num_signed: Mapping[str, int] | None = None,
    budget_bytes: int | None = None,
    max_tokens: int | None = None,
    keep_ids: bool = False,
    progress: Progress | None = None,
    stage: Stage | None = None,
    checkpoint: FitCheckpoint | None = None,
) -> SignatureTable:
    """Build signatures from the training rows of a log.

    Random codes take one pass over the log, and one more to count tokens where a table's ids are
    hashes (`num_embeddings` None); learned codes take `1 + config.passes`, and one more where
    `max_tokens` is given. The second pass makes supports exact (see `FitPasses`).

    Args:
        log: A prepared `lma.data.Dataset`, or anything with `schema.features` (each with `name`
            and `num_embeddings`), `num_rows("train")` and `batches("train", batch_size)` that
            yields objects with `values`, `offsets` and `labels` (and takes `start_batch`, to go
            on from a checkpoint).
        config: Which similarity and kind, how many codes; `SignatureConfig()` unless given.
        num_signed: Tokens to sign per table, as a `Plan` decides.
        budget_bytes: Bytes for codes and index instead: signs all tokens of the lowest support
            that they allow.
        max_tokens: Most tokens to count per table of hashed ids; None: all, exactly.
        keep_ids: Also keep which tokens are signed, where ids are hashes: 8 bytes per token in a
            file of their own, for `SignatureTable.neighbours`.
        progress: Called as progress(rows done, rows in all, tokens seen), rows counted once per
            pass.
        stage: Called with a name for what begins: "pass 1 of 2", and what comes between and after
            passes, which may take longer than they do: "directions", "codes".
        checkpoint: Where to keep the state of the fit, and to go on from; remove it once the table
            is kept.
    """
    fit = _run(
        log,
        FitPasses(
            table_sizes(log),
            config or SignatureConfig(),
            num_signed=num_signed,
            budget_bytes=budget_bytes,
            max_tokens=max_tokens,
        ),
        progress,
        checkpoint,
        stage,
    )
    if stage is not None:
        stage("codes")
    return fit.finish(keep_ids=keep_ids)


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
    fit = _run(log, FitPasses(table_sizes(log), config, num_signed=num_signed), progress, None)
    if not isinstance(fit.builder, ContextCodeBuilder):
        raise ValueError(f"fit_context_codes: config.kind must be 'learned', found {config.kind!r}")
    return fit.builder


def table_sizes(log: Any) -> dict[str, int | None]:
    """`num_embeddings` of every feature's table, in order."""
    return {feature.name: feature.num_embeddings for feature in log.schema.features}


def _run(
    log: Any,
    fit: FitPasses,
    progress: Progress | None,
    checkpoint: FitCheckpoint | None,
    stage: Stage | None = None,
) -> FitPasses:
    """All passes, from where the checkpoint stands."""
    total = log.num_rows("train")
    if checkpoint is not None:
        fit = checkpoint.load() or fit
    tell = stage or (lambda name: None)
    while fit.passes_done < fit.num_passes:
        tell(f"pass {fit.passes_done + 1} of {fit.num_passes}")
        start = {"start_batch": fit.batches_done} if fit.batches_done else {}
        saved = fit.rows_done
        for batch in log.batches("train", BATCH_ROWS, **start):
            fit.update(batch.values, batch.offsets, batch.labels, total)
            if progress is not None:
                done = fit.passes_done * total + fit.rows_done
                progress(done, fit.num_passes * total, fit.num_tokens)
            if checkpoint is not None and fit.rows_done - saved >= checkpoint.every_rows:
                checkpoint.save(fit)
                saved = fit.rows_done
        if fit.finds_directions:
            tell("directions")
        fit.next_pass()
        if checkpoint is not None:
            checkpoint.save(fit)
    return fit


__all__ = ["fit_context_codes", "fit_signatures", "table_sizes"]
