"""The one sentence that the results allow, per dataset."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lma.report.best import BudgetBest, best_per_budget
from lma.report.paired import PairedDifference
from lma.report.summary import Summary
from lma.report.units import human_bytes, human_ratio, score


def headline(summaries: Sequence[Summary]) -> list[str]:
    """One sentence per dataset: the best compressed method at each budget against the full tables.

    "Best" is by validation AUC among the methods within the budget; the scores are test AUC. A
    difference whose 95 % interval holds zero is not called one.

    Args:
        summaries: What `summarise` returned.
    """
    datasets = dict.fromkeys(s.dataset for s in summaries)
    return [_sentence([s for s in summaries if s.dataset == name]) for name in datasets]


def _sentence(cells: Sequence[Summary]) -> str:
    name = cells[0].dataset + (" (synthetic log)" if any(s.is_synthetic for s in cells) else "")
    budgets = best_per_budget(cells)
    full = next((s for s in cells if s.is_full), None)
    if not budgets:
        return _without_budgets(name, cells)
    clauses = [_clause(budget) for budget in budgets]
    text = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
    most = max(budget.num_methods for budget in budgets)
    chosen = "the best compressed method by validation" if most > 1 else "the one compressed method"
    if full is not None and math.isfinite(full.test_auc.mean):
        reached = f"have test AUC {score(full.test_auc.mean)} in {human_bytes(full.serving.mean)}"
        return f"On {name}, where the full tables {reached}, {chosen} has {text}."
    return f"On {name}, {chosen} has test AUC {text}; the full tables were not run."


def _clause(budget: BudgetBest) -> str:
    best = budget.best
    asked = budget.target
    real = human_ratio(best.compression.mean)
    inside = [best.method]
    if asked.replace(" ", "").lower() != real:
        inside.append(f"in fact {real}" if asked.strip()[-1:] in "xX" else real)
    if budget.against_full is not None:
        inside.append(against(budget.against_full))
    return f"{score(best.test_auc.mean)} at {asked} ({', '.join(inside)})"


def against(difference: PairedDifference, other: str = "") -> str:
    """A difference in words that claim no more than it shows.

    >>> against(PairedDifference(-0.014, 0.0003, 3, -0.0153, -0.0127), "the full tables")
    '0.0140 below the full tables'
    >>> against(PairedDifference(0.001, 0.0007, 3, -0.002, 0.004), "robe")
    'not distinguishable from robe over 3 seeds'
    """
    side = "above" if difference.mean > 0 else "below"
    text = " ".join([score(abs(difference.mean)), side, other]).rstrip()
    if difference.n < 2:
        return f"{text} on one seed"
    if difference.low95 <= 0 <= difference.high95:
        origin = f"from {other} " if other else ""
        return f"not distinguishable {origin}over {difference.n} seeds"
    return text


def _without_budgets(name: str, cells: Sequence[Summary]) -> str:
    """The sentence for a dataset on which nothing was compressed."""
    scored = [s for s in cells if math.isfinite(s.validation_auc.mean)]
    if not scored:
        return f"On {name}, no run has a validation AUC."
    best = max(scored, key=lambda s: s.validation_auc.mean)
    return (
        f"On {name}, {best.method} has test AUC {score(best.test_auc.mean)} "
        f"in {human_bytes(best.serving.mean)}; no compressed method was run."
    )
