"""An allocation whose signatures are fitted on the way, once the budget has said of whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lma.allocation.base import Allocation, Method
from lma.allocation.lma import Lma, settle
from lma.allocation.planning import make_plan
from lma.allocation.tables import Budget, Table
from lma.signatures.config import SignatureConfig
from lma.signatures.stats import LogStats
from lma.signatures.table import SignatureTable

# fit(config, tokens to sign per table, or None for all with enough support)
Fit = Callable[[SignatureConfig, Mapping[str, int] | None], SignatureTable]


def fitted_allocation(
    method: Method,
    signatures: SignatureConfig | None,
    tables: Sequence[Table],
    budget: Budget | None,
    stats: LogStats,
    fit: Fit,
) -> Allocation:
    """Lay tables out, with signatures fitted for just this budget where the method needs them.

    Args:
        method: Any method.
        signatures: How to make its signatures; None for a method without.
        tables: The tables.
        budget: None for methods without.
        stats: Of the log.
        fit: Makes the signatures.

    Raises:
        BudgetError: The budget is too small, found out before anything is fitted.
    """
    if signatures is None or budget is None or not isinstance(method, Lma):
        return method.allocate(tables, budget, stats=stats)
    hashed = [table.name for table in tables if table.num_embeddings is None]
    plan = make_plan(budget, stats, tables, method, signatures, hashed=hashed)
    if hashed:
        # Of hashed ids only those that the plan signs are known to the index.
        fitted = fit(signatures, plan.num_signed)
        return settle(tables, plan, fitted, budget, method.seed)
    return method.allocate(tables, budget, signatures=fit(signatures, None), stats=stats)


__all__ = ["fitted_allocation"]
