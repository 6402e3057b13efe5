"""Methods x budgets x hyper-parameters x seeds: every cell once, each result kept as it comes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lma.errors import BudgetError, UnsupportedError
from lma.results import RunResult, append_result, read_results
from lma.training.cells import cells
from lma.training.config import CompareConfig, RunConfig
from lma.training.experiment import SignatureShelf, identity_of, run
from lma.training.loop import Progress


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A cell that could not be: its config and why."""

    config: RunConfig
    reason: str


def compare(
    dataset: Any,
    config: CompareConfig,
    results: Path,
    *,
    shelf: SignatureShelf | None = None,
    device: str = "cpu",
    progress: Callable[[RunConfig, int, int], Progress | None] | None = None,
) -> tuple[list[RunResult], list[Skipped]]:
    """Run all cells that the results file lacks; append each result as it comes.

    Args:
        dataset: A prepared `lma.data.Dataset`.
        config: What to compare.
        results: JSON-lines file; cells it holds already are not run again.
        shelf: Signatures fitted before, to be shared.
        device: Where to train.
        progress: Called with (config, cell's number, cells in all) before each run; may return
            a callable for `train`'s progress.

    Returns:
        The results of all cells of this comparison, old and new, and the cells whose method does
        not fit its budget.
    """
    total = sum(1 for _ in cells(config))
    shelf = shelf or SignatureShelf(dataset)
    done = {r.cell: r for r in read_results(results)} if results.exists() else {}
    found: list[RunResult] = []
    skipped: list[Skipped] = []

    def choose(candidates: Sequence[RunConfig]) -> RunConfig:
        """The highest validation AUC; a cell that does not fit its budget comes last."""

        def auc(run_config: RunConfig) -> float:
            result = done.get(identity_of(dataset, run_config))
            value = None if result is None else result.validation.get("auc")
            return -math.inf if value is None or math.isnan(value) else value

        return max(candidates, key=auc)

    for number, run_config in enumerate(cells(config, choose)):
        identity = identity_of(dataset, run_config)
        if identity not in done:
            step = None if progress is None else progress(run_config, number, total)
            try:
                _, result = run(
                    dataset,
                    run_config,
                    shelf,
                    device=device,
                    checkpoint=(checkpoint := results.with_name(f".{results.name}.{identity}.pt")),
                    progress=step,
                )
            except (BudgetError, UnsupportedError) as error:
                skipped.append(Skipped(run_config, str(error)))
                continue
            append_result(results, result)
            checkpoint.unlink(missing_ok=True)
            done[identity] = result
        found.append(done[identity])
    return found, skipped
