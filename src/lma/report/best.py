"""Which compressed method is best at a budget: by validation, within the budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from lma.report.paired import PairedDifference, difference
from lma.report.summary import Summary


@dataclasses.dataclass(frozen=True)
class BudgetBest:
    """The method that a practitioner would take at one budget, knowing validation only.

    Attributes:
        target: The budget as asked for.
        best: The cell of the highest mean validation AUC among those within the budget.
        runner_up: The next one; None if there was no other.
        num_methods: How many were compared.
        over_budget: Cells left out because their serving bytes exceed the budget.
        against_full: Paired difference to the full tables; None without them.
        against_runner_up: Paired difference to the runner-up; None without one.
    """

    target: str
    best: Summary
    runner_up: Summary | None
    num_methods: int
    over_budget: tuple[Summary, ...]
    against_full: PairedDifference | None
    against_runner_up: PairedDifference | None


def best_per_budget(summaries: Sequence[Summary]) -> list[BudgetBest]:
    """The best compressed method at each budget of one dataset, chosen on validation.

    Methods whose serving bytes exceed the budget by more than 5 % do not compete, unless none is
    within it. A cell without a finite validation AUC never wins.

    Args:
        summaries: Cells of one dataset, in the order of `summarise`.
    """
    full = next((s for s in summaries if s.is_full and not s.target), None)
    found: list[BudgetBest] = []
    for target in dict.fromkeys(s.target for s in summaries if s.target):
        cells = [s for s in summaries if s.target == target and not s.is_full and not s.is_control]
        cells = [s for s in cells if math.isfinite(s.validation_auc.mean)]
        within = [s for s in cells if not s.is_over_budget]
        ranked = sorted(within or cells, key=lambda s: -s.validation_auc.mean)
        if not ranked:
            continue
        best = ranked[0]
        runner_up = ranked[1] if len(ranked) > 1 else None
        found.append(
            BudgetBest(
                target=target,
                best=best,
                runner_up=runner_up,
                num_methods=len(ranked),
                over_budget=tuple(s for s in cells if s.is_over_budget) if within else (),
                against_full=paired_or_none(best, full),
                against_runner_up=paired_or_none(best, runner_up),
            )
        )
    return found


def paired_or_none(a: Summary, b: Summary | None) -> PairedDifference | None:
    """The paired difference, or None where there is nothing to compare with."""
    if b is None:
        return None
    try:
        return difference(a, b)
    except ValueError:
        return None
