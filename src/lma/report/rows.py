"""One formatted row per cell, the same for the terminal, Markdown and the page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from lma.report.best import best_per_budget, paired_or_none
from lma.report.statistics import Estimate
from lma.report.summary import Summary
from lma.report.units import NOTHING, human_bytes, human_ratio, score, seconds, signed


@dataclasses.dataclass(frozen=True)
class Row:
    """The text of one line of a table of results.

    `is_best` marks the method chosen on validation at its budget; `is_first` the first line of a
    budget; `marks` are footnote signs: `!` over budget, `#` a value at the edge of its grid,
    `~` seeds without a finite AUC.
    """

    dataset: str
    target: str
    method: str
    serving: str
    weights: str
    signatures: str
    index: str
    training: str
    ratio: str
    weight_ratio: str
    auc: str
    log_loss: str
    train_seconds: str
    against_full: str
    is_best: bool
    is_first: bool
    is_synthetic: bool
    marks: str


FOOTNOTES = {
    "*": "best on validation among the methods within the budget",
    "!": "over its budget by more than 5 %",
    "#": "a chosen hyper-parameter is at the edge of its grid",
    "~": "some seeds have no finite AUC",
}


def table_rows(summaries: Sequence[Summary]) -> list[Row]:
    """Rows in the order of the summaries."""
    best = {
        id(budget.best)
        for dataset in dict.fromkeys(s.dataset for s in summaries)
        for budget in best_per_budget([s for s in summaries if s.dataset == dataset])
        if budget.num_methods > 1
    }
    full = {s.dataset: s for s in summaries if s.is_full}
    rows: list[Row] = []
    for s in summaries:
        previous = rows[-1] if rows else None
        against = None if s.is_full else paired_or_none(s, full.get(s.dataset))
        rows.append(
            Row(
                dataset=s.dataset,
                target=s.target,
                method=s.method,
                serving=human_bytes(s.serving.mean),
                weights=human_bytes(s.weights.mean),
                signatures=_or_nothing(s.signatures.mean),
                index=_or_nothing(s.index.mean),
                training=human_bytes(s.training.mean),
                ratio=human_ratio(s.compression.mean),
                weight_ratio=human_ratio(s.weight_compression.mean),
                auc=with_error(s.test_auc),
                log_loss=score(s.test_log_loss.mean),
                train_seconds=seconds(s.train_seconds.mean),
                against_full="" if against is None else _difference(against.mean, against.low95),
                is_best=id(s) in best,
                is_first=previous is None
                or (previous.dataset, previous.target) != (s.dataset, s.target),
                is_synthetic=s.is_synthetic,
                marks=("!" if s.is_over_budget else "")
                + ("#" if s.edges else "")
                + ("~" if s.failed_seeds else ""),
            )
        )
    return rows


def footnotes(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The signs that occur in the rows, with their meaning."""
    used = {sign for row in rows for sign in row.marks} | {"*" for row in rows if row.is_best}
    return [(sign, meaning) for sign, meaning in FOOTNOTES.items() if sign in used]


def with_error(value: Estimate) -> str:
    """Mean and standard error; the mean alone where one seed gives no error."""
    if not math.isfinite(value.standard_error):
        return score(value.mean)
    error = value.standard_error
    # Four digits would show a small error as none at all.
    digits = 4 if error == 0 or error >= 0.00005 else 5
    return f"{score(value.mean)} ± {score(error, digits)}"


def _difference(mean: float, low: float) -> str:
    """Mean and half of the 95 % interval."""
    if not math.isfinite(low):
        return signed(mean)
    return f"{signed(mean)} ± {score(mean - low)}"


def _or_nothing(count: float) -> str:
    return NOTHING if count == 0 else human_bytes(count)
