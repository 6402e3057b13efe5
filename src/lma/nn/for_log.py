"""`embeddings_for`: a log and a budget in, embeddings out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lma.allocation import Allocation, Auto, Budget, Table
from lma.allocation.auto import Choice
from lma.allocation.fitted import Fit, fitted_allocation
from lma.allocation.judgement import judge
from lma.allocation.tables import REFERENCE_DIM
from lma.nn.collection import EmbeddingBagCollection
from lma.signatures import LogStats, SignatureConfig, SignatureTable, fit_signatures

# Formats of `lma prepare` whose negatives are sampled: there labels say nothing of a token.
FORMATS_OF_POSITIVES = ("frappe", "interactions")
# What sums of log-odds do not show, in AUC: codes let tokens of a few rows learn from each other in
# company, and wide rows hold more than one number per token.
CODES_GIVE = 0.01
DIMS_GIVE = {1: -0.003, 2: 0.0, 4: 0.005, 8: 0.0075, 16: 0.0085}


def embeddings_for(
    log: Any, budget: int | str | Budget, *, method: Auto | None = None, **arguments: Any
) -> EmbeddingBagCollection:
    """Embeddings of all features of a log within a budget; nothing else is to be chosen.

    The log's statistics, and where its labels are real a look at training rows, decide between
    rows of 4-bit floats and learned codes fitted on its training rows: see `lma.allocation.Auto`.

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
    choice, allocation = choose_for_log(
        log, method or Auto(), tables, resolved, stats,
        lambda config, signed: fit_signatures(log, config, num_signed=signed),
    )  # fmt: skip
    return EmbeddingBagCollection.for_schema(  # type: ignore[no-any-return]
        log.schema,
        choice.tables[0].embedding_dim,
        allocation=allocation,
        precision=choice.budget.precision,
        **arguments,
    )


def choose_for_log(
    log: Any, method: Auto, tables: Sequence[Table], budget: Budget, stats: LogStats, fit: Fit
) -> tuple[Choice, Allocation]:
    """What `Auto` chooses for a log, laid out; codes that see no labels must earn their place.

    Contexts of all rows may be like each other without meaning the same click. So where they are
    what codes are made of, training rows judge codes against 8-bit rows of the frequent tokens
    (`lma.allocation.judgement`), which have to be .010 AUC better.

    Args:
        log, tables, budget, stats: Of one log.
        method: Its `similarity` may be left open.
        fit: Makes signatures, as `fitted_allocation` takes it.
    """
    if method.similarity is None:
        method = dataclasses.replace(method, similarity=similarity_of(log))
    choice = method.choose(tables, budget, stats)

    def made(config: SignatureConfig, signed: Mapping[str, int] | None) -> SignatureTable:
        table = fit(config, signed)
        return table.permuted(method.seed) if method.permuted else table

    allocation = fitted_allocation(
        choice.method, choice.signatures, choice.tables, choice.budget, stats, made
    )
    coded = choice.signatures is not None and choice.signatures.similarity == "context"
    if (
        not (coded and method.judged)
        or method.permuted
        or any(table.num_embeddings is None for table in tables)
    ):
        return choice, allocation
    others = method.rows(tables, budget, "int8")
    layouts = [c.method.allocate(c.tables, c.budget, stats=stats) for c in others]
    of_codes, *of_rows = judge(log, [allocation, *layouts])
    if not of_rows:
        return choice, allocation
    worth = [
        auc + DIMS_GIVE[c.tables[0].embedding_dim] for auc, c in zip(of_rows, others, strict=True)
    ]
    best = worth.index(max(worth))
    if of_codes + CODES_GIVE >= of_rows[best]:
        return choice, allocation
    return others[best], layouts[best]


def similarity_of(log: Any) -> str:
    """Contexts that a log's labels are fit for.

    "positive_context" where `lma prepare` sampled the negatives, whose labels say nothing of a
    token. Where labels are real, "context", what a token meets in all of its rows; but of two
    features alone, which say little of each other but by the label, "labelled_context".
    """
    if getattr(log, "meta", {}).get("format") in FORMATS_OF_POSITIVES:
        return "positive_context"
    return "context" if len(log.schema.features) > 2 else "labelled_context"


__all__ = ["choose_for_log", "embeddings_for", "similarity_of"]
