"""Differences between two methods, seed by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from lma.report.selection import metric
from lma.report.statistics import estimate
from lma.report.summary import Summary, summarise
from lma.results import RunResult


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """Test AUC of one method minus that of another, over the seeds that both have.

    Attributes:
        mean: Mean difference; positive where the first method is better.
        standard_error: Of the mean (n - 1); NaN for one seed.
        n: Number of common seeds with a finite difference.
        low95: Lower end of the 95 % interval (Student's t); NaN for one seed.
        high95: Upper end.
    """

    mean: float
    standard_error: float
    n: int
    low95: float
    high95: float


def paired_difference(
    results: Iterable[RunResult], method_a: str, method_b: str, target: str, dataset: str
) -> PairedDifference:
    """Test AUC of `method_a` minus `method_b` on a dataset at a target.

    Each method's configuration is the one chosen on validation. A method that has no run at the
    target but one without a target (the full tables) is taken from there.

    Raises:
        ValueError: A method has no run there, or the two have no seed in common.
    """
    runs = [r for r in results if r.dataset == dataset and r.method in (method_a, method_b)]
    cells = {(s.method, s.target): s for s in summarise(runs)} if runs else {}

    def find(method: str) -> Summary:
        found = cells.get((method, target)) or cells.get((method, ""))
        if found is None:
            have = sorted({(r.method, r.target) for r in runs})
            raise ValueError(
                f"no run of method {method!r} at target {target!r} on dataset {dataset!r}; "
                f"found (method, target): {have}"
            )
        return found

    return difference(find(method_a), find(method_b))


def difference(a: Summary, b: Summary) -> PairedDifference:
    """Paired difference of the test AUC of two cells.

    Raises:
        ValueError: The two have no seed in common with a finite AUC in both.
    """
    of_b = {run.seed: metric(run.test, "auc") for run in b.runs}
    pairs = [metric(run.test, "auc") - of_b.get(run.seed, math.nan) for run in a.runs]
    result = estimate(pairs)
    if result.n == 0:
        raise ValueError(
            f"no seed in common with a finite test AUC: {a.method!r} has seeds {a.seeds}, "
            f"{b.method!r} has {b.seeds}"
        )
    low, high = result.interval()
    return PairedDifference(result.mean, result.standard_error, result.n, low, high)
