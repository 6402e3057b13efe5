"""`embeddings_for`: a log and a budget in, embeddings out."""

from __future__ import annotations

from typing import Any

from lma.allocation import Auto, Budget, Table
from lma.allocation.fitted import fitted_allocation
from lma.allocation.tables import REFERENCE_DIM
from lma.nn.collection import EmbeddingBagCollection
from lma.signatures import LogStats, fit_signatures


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
        method: Settings of the choice; name `similarity` where negatives are sampled or labels
            real: "positive_context", "labelled_context".
        arguments: Of `SharedMemory`: `init_std`, `out_of_range`, `device`.

    Returns:
        A collection whose `embedding_dim` is the method's choice: build the model around it.
    """
    stats = LogStats.from_dataset(log)
    resolved = Budget.of(budget, None, stats.num_tokens)
    if resolved is None:
        raise ValueError("embeddings_for needs a budget, such as '64MB' or '16x'")
    tables = [Table(f.name, f.num_embeddings, REFERENCE_DIM) for f in log.schema.features]
    choice = (method or Auto()).choose(tables, resolved, stats)
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


__all__ = ["embeddings_for"]
