"""Choice among the configurations of one cell, on validation AUC and nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lma.report.statistics import estimate
from lma.results import RunResult


@dataclasses.dataclass(frozen=True)
class Choice:
    """The configuration that won, with its runs.

    Attributes:
        runs: One run per seed, by seed.
        chosen: The hyper-parameters that differed among the configurations, as chosen.
        num_configs: How many configurations there were.
        num_common_seeds: How many seeds all configurations have.
        edges: One sentence for each chosen number that is the smallest or largest tried.
    """

    runs: tuple[RunResult, ...]
    chosen: Mapping[str, Any]
    num_configs: int
    num_common_seeds: int
    edges: tuple[str, ...]


def choose(runs: Sequence[RunResult]) -> Choice:
    """Choose the configuration of one (dataset, method, target) on mean validation AUC.

    Configurations are compared on the seeds that all of them have, so that none wins by a luckier
    choice of seeds; without such seeds, each on its own. Where the winner was repeated with more
    seeds, it is compared once more, on all of its seeds, with those that have them too: one seed's
    luck does not last. One whose validation AUC is missing for some seed comes after all that
    have it. A later run of the same configuration and seed replaces the earlier one.

    Args:
        runs: At least one run, all of one dataset, method and target.
    """
    grid: dict[str, dict[int, RunResult]] = {}
    for run in runs:
        key = json.dumps(hyperparameters(run), sort_keys=True, default=str)
        grid.setdefault(key, {})[run.seed] = run
    common = set.intersection(*(set(by_seed) for by_seed in grid.values()))

    def rank(key: str, seeds: set[int]) -> tuple[int, float]:
        by_seed = grid[key]
        scores = [metric(by_seed[seed].validation, "auc") for seed in seeds or by_seed]
        missing = sum(not math.isfinite(value) for value in scores)
        mean = estimate(scores).mean
        return missing, math.inf if math.isnan(mean) else -mean

    # Equal means: the first one in the order of the lines.
    best = min(grid, key=lambda key: rank(key, common))
    seeds = set(grid[best])
    repeated = [key for key in grid if seeds <= set(grid[key])]
    best = min(repeated, key=lambda key: rank(key, seeds))
    configs = [hyperparameters(next(iter(by_seed.values()))) for by_seed in grid.values()]
    winner = tuple(grid[best][seed] for seed in sorted(grid[best]))
    chosen, edges = _against_grid(hyperparameters(winner[0]), configs)
    return Choice(winner, chosen, len(grid), len(common), edges)


def hyperparameters(run: RunResult) -> dict[str, Any]:
    """Leaves of the config by dotted name, without seeds and without the data's section."""
    flat: dict[str, Any] = {}

    def walk(section: Mapping[str, Any], prefix: str) -> None:
        for key, value in section.items():
            if key == "seed" or key.endswith("_seed") or (not prefix and key == "data"):
                continue
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = value

    walk(run.config, "")
    return flat


def metric(values: Mapping[str, Any], name: str) -> float:
    """A metric as a float; NaN where it is missing, null or not finite."""
    value = values.get(name)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return math.nan
    return float(value)


def _against_grid(
    chosen: Mapping[str, Any], configs: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The chosen values of what varied, and a sentence for each at the edge of its grid."""
    varied: dict[str, Any] = {}
    edges: list[str] = []
    for name in dict.fromkeys(name for config in configs for name in config):
        tried = [config.get(name) for config in configs]
        if all(value == tried[0] for value in tried):
            continue
        value = varied[name] = chosen.get(name)
        numbers = [v for v in tried if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if value not in numbers or min(numbers) == max(numbers):
            continue
        if value == max(numbers):
            edges.append(f"{name} = {value:g} is the largest value tried")
        # Nothing lies below zero: no weight decay is not an edge that a wider grid could pass.
        elif value == min(numbers) and value != 0:
            edges.append(f"{name} = {value:g} is the smallest value tried")
    return varied, tuple(edges)
