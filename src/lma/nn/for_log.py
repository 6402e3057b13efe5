"""`embeddings_for`: a log and a budget in, embeddings out."""

from __future__ import annotations

import dataclasses
from typing import Any

from lma.allocation import Auto, Budget, Table
from lma.allocation.fitted import fitted_allocation
from lma.allocation.tables import REFERENCE_DIM
from lma.nn.collection import EmbeddingBagCollection
from lma.signatures import LogStats, fit_signatures

# Formats of `lma prepare` whose negatives are sampled: there labels say nothing of a token.
FORMATS_OF_POSITIVES = ("frappe", "interactions")


def embeddings_for(
    log: Any, budget: int | str | Budget, *, method: Auto | None = None, **arguments: Any
) -> EmbeddingBagCollection:
    """Embeddings of all features of a log within a budget; nothing else is to be chosen.

    The log's statistics decide between rows of 4-bit floats and learned codes, which are then
    fitted on its training rows: see `lma.allocation.Auto`.

    Args:
        log: A prepared `lma.data.Dataset`, or what `lma.fit_signatures` and
            `LogStats.from_dataset` take.
        budget: Serving bytes (`64_000_000`, "64MB"), or "16x".
        method: Settings of the choice. Where they name no `similarity`, it is that of
            `similarity_of(log)`.
        arguments: Of `SharedMemory`: `init_std`, `out_of_range`, `device`.

    Returns:
        A collection whose `embedding_dim` is the method's choice: build the model around it.
    """
    stats = LogStats.from_dataset(log)
    resolved = Budget.of(budget, None, stats.num_tokens)
    if resolved is None:
        raise ValueError("embeddings_for needs a budget, such as '64MB' or '16x'")
    tables = [Table(f.name, f.num_embeddings, REFERENCE_DIM) for f in log.schema.features]
    method = method or Auto()
    if method.similarity is None:
        method = dataclasses.replace(method, similarity=similarity_of(log))
    choice = method.choose(tables, resolved, stats)
    allocation = fitted_allocation(
        choice.method, choice.signatures, choice.tables, choice.budget, stats,
        lambda config, signed: fit_signatures(log, config, num_signed=signed),
    )  # fmt: skip
    return EmbeddingBagCollection.for_schema(  # type: ignore[no-any-return]
        log.schema,
        choice.tables[0].embedding_dim,
        allocation=allocation,
        precision=choice.budget.precision,
        **arguments,
    )


def similarity_of(log: Any) -> str:
    """Contexts that a log's labels are fit for.

    "positive_context" where `lma prepare` sampled the negatives, whose labels say nothing of a
    token. Where labels are real, "context", what a token meets in all of its rows; but of two
    features alone, which say little of each other but by the label, "labelled_context".
    """
    if getattr(log, "meta", {}).get("format") in FORMATS_OF_POSITIVES:
        return "positive_context"
    return "context" if len(log.schema.features) > 2 else "labelled_context"


__all__ = ["embeddings_for", "similarity_of"]
