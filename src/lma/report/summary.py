"""Result lines grouped into cells of (dataset, method, target)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from lma.report.budget import budget_bytes, is_over
from lma.report.selection import choose, metric
from lma.report.statistics import Estimate, estimate
from lma.results import RunResult

FULL = "full"
# Ends of the names of methods that explain others; "from contexts" may be served in fewer bits.
CONTROLS = ("codes permuted", "from contexts", "from contexts, int8", "from contexts, int4")


@dataclasses.dataclass(frozen=True)
class Summary:
    """One cell: what a method reached on a dataset at a target, over its seeds.

    Every `Estimate` holds mean, standard error (n - 1) and n over the runs of the configuration
    that was chosen on validation AUC.

    Attributes:
        dataset: Short name of the log.
        method: Short name of the method.
        target: The budget asked for; "" for none.
        test_auc: AUC on test rows.
        test_log_loss: Log-loss on test rows.
        validation_auc: AUC on validation rows.
        weights: Bytes of trained floats.
        signatures: Bytes of codes.
        index: Bytes that find a token's codes or row.
        serving: weights + signatures + index.
        training: Serving bytes plus gradients and optimizer state.
        compression: Reference bytes over serving bytes.
        weight_compression: Reference bytes over weights alone.
        train_seconds: Wall-clock time in training steps.
        reference_bytes: Tokens x reference_dim x 4.
        runs: The runs behind the numbers, by seed.
        chosen: The hyper-parameters that differed among configurations, as chosen.
        num_configs: Number of configurations from which one was chosen.
        num_common_seeds: How many seeds all these configurations have.
        edges: A sentence for each chosen value at the edge of its grid.
    """

    dataset: str
    method: str
    target: str
    test_auc: Estimate
    test_log_loss: Estimate
    validation_auc: Estimate
    weights: Estimate
    signatures: Estimate
    index: Estimate
    serving: Estimate
    training: Estimate
    compression: Estimate
    weight_compression: Estimate
    train_seconds: Estimate
    reference_bytes: float
    runs: tuple[RunResult, ...] = dataclasses.field(repr=False)
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_configs: int = 1
    num_common_seeds: int = 1
    edges: tuple[str, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether these are the full tables, which all others are measured against."""
        return self.method == FULL

    @property
    def is_control(self) -> bool:
        """Whether the method is there to explain another, not to be used."""
        return self.method.endswith(CONTROLS)

    @property
    def is_over_budget(self) -> bool:
        """Whether serving bytes exceed what the target allows by more than 5 %."""
        return is_over(self.target, self.reference_bytes, self.serving.mean)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def failed_seeds(self) -> tuple[int, ...]:
        """Seeds whose validation or test AUC is missing or not a number."""
        return tuple(
            run.seed
            for run in self.runs
            if math.isnan(metric(run.test, "auc") + metric(run.validation, "auc"))
        )

    @property
    def description(self) -> str:
        """What the data's config says about the log; "" if nothing."""
        data = self.runs[0].config.get("data", {})
        text = data.get("description", "") if isinstance(data, Mapping) else ""
        return str(text or "")

    @property
    def is_synthetic(self) -> bool:
        """Whether the log's description says that it is synthetic."""
        return "synthetic" in self.description.lower()


def summarise(results: Iterable[RunResult]) -> list[Summary]:
    """Group runs by (dataset, method, target) over seeds.

    Where a cell has several configurations (learning rate, weight decay, epochs, ...), the one of
    the highest mean *validation* AUC is taken; test metrics are never looked at for this.

    Args:
        results: Result lines in any order.

    Returns:
        One summary per cell: datasets in order of appearance; in each, full tables first, then
        the budgets from large to small, in each of them by test AUC.

    Raises:
        ValueError: There is no result.
    """
    cells: dict[tuple[str, str, str], list[RunResult]] = {}
    for run in results:
        cells.setdefault((run.dataset, run.method, run.target), []).append(run)
    if not cells:
        raise ValueError("no results to report: expected at least one result line, found none")
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in cells))
    summaries = [_summary(key, runs) for key, runs in cells.items()]
    return sorted(summaries, key=lambda summary: _order(summary, datasets))


def _summary(key: tuple[str, str, str], runs: list[RunResult]) -> Summary:
    choice = choose(runs)
    taken = choice.runs

    def of_bytes(name: str) -> Estimate:
        return estimate(metric(run.bytes, name) for run in taken)

    def over_bytes(name: str) -> Estimate:
        return estimate(
            run.reference_bytes / max(1.0, metric(run.bytes, name))
            for run in taken
            if math.isfinite(metric(run.bytes, name))
        )

    dataset, method, target = key
    return Summary(
        dataset=dataset,
        method=method,
        target=target,
        test_auc=estimate(metric(run.test, "auc") for run in taken),
        test_log_loss=estimate(metric(run.test, "log_loss") for run in taken),
        validation_auc=estimate(metric(run.validation, "auc") for run in taken),
        weights=of_bytes("weights"),
        signatures=of_bytes("signatures"),
        index=of_bytes("index"),
        serving=of_bytes("serving"),
        training=of_bytes("training"),
        compression=over_bytes("serving"),
        weight_compression=over_bytes("weights"),
        train_seconds=estimate(run.train_seconds for run in taken),
        reference_bytes=estimate(run.reference_bytes for run in taken).mean,
        runs=taken,
        chosen=choice.chosen,
        num_configs=choice.num_configs,
        num_common_seeds=choice.num_common_seeds,
        edges=choice.edges,
    )


def _order(summary: Summary, datasets: list[str]) -> tuple[int, int, float, str, float, str]:
    """Full first, other methods without a budget, then budgets from large to small, by AUC."""
    auc = summary.test_auc.mean
    group = 0 if summary.is_full else 1 if not summary.target else 2
    allowed = budget_bytes(summary.target, summary.reference_bytes)
    return (
        datasets.index(summary.dataset),
        group,
        -allowed if allowed is not None else 0.0,
        summary.target,
        -auc if math.isfinite(auc) else math.inf,
        summary.method,
    )
