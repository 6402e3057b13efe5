"""Methods x budgets x learning rates x seeds: every cell once, each result kept as it comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lma.errors import BudgetError, UnsupportedError
from lma.results import RunResult, append_result, read_results
from lma.training.config import CompareConfig, ConfigError, MethodConfig, RunConfig
from lma.training.experiment import SignatureShelf, identity_of, run
from lma.training.loop import Progress
from lma.training.methods import method_spec


def cells(config: CompareConfig) -> Iterator[RunConfig]:
    """The runs of a comparison, seed by seed, so that early results cover all methods."""
    for name in (*config.methods, *config.settings):
        name, _, budget = name.partition("@")
        method_spec(name)
        if budget and budget not in config.budgets:
            raise ConfigError(f"settings of {name}@{budget}: budgets are {config.budgets}")
    rates = config.learning_rates or (config.training.learning_rate,)
    for seed in config.seeds:
        for rate in rates:
            training = dataclasses.replace(config.training, learning_rate=rate)
            for budget in ("", *config.budgets):
                for name in config.methods:
                    if method_spec(name).takes_budget != bool(budget):
                        continue
                    settings = {
                        **config.settings.get(name, {}),
                        **config.settings.get(f"{name}@{budget}", {}),
                    }
                    dim = settings.pop("embedding_dim", config.model.embedding_dim)
                    counts = config.counts if budget else "serving"
                    yield RunConfig(
                        MethodConfig(name, budget, counts, settings),
                        dataclasses.replace(config.model, embedding_dim=dim),
                        training,
                        seed,
                        config.max_rows,
                    )


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
    wanted = list(cells(config))
    shelf = shelf or SignatureShelf(dataset)
    done = {r.cell: r for r in read_results(results)} if results.exists() else {}
    found: list[RunResult] = []
    skipped: list[Skipped] = []
    for number, run_config in enumerate(wanted):
        identity = identity_of(dataset, run_config)
        if identity not in done:
            step = None if progress is None else progress(run_config, number, len(wanted))
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
