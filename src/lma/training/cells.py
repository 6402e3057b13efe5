"""The runs of a comparison: what every method tries, and what is repeated with other seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from lma.training.config import (
    CompareConfig,
    ConfigError,
    MethodConfig,
    RunConfig,
    TrainingConfig,
    check_key,
)
from lma.training.methods import method_spec

Choose = Callable[[Sequence[RunConfig]], RunConfig]


def _first(configs: Sequence[RunConfig]) -> RunConfig:
    return configs[0]


def cells(config: CompareConfig, choose: Choose = _first) -> Iterator[RunConfig]:
    """The runs, seed by seed, so that early results cover all methods.

    Where a method has several things to try - its `grid`, learning rates, weight decays - they are
    tried in turn, each with the best of those before it, which takes the sum of their runs and not
    the product.

    Args:
        config: What to compare.
        choose: The best of some configs that were yielded before, by their validation rows: their
            runs have to be over when the next config is asked for. The default takes the first,
            which is enough to count runs.

    Raises:
        ConfigError: An unknown method, or a budget that only `settings` or `grid` name.
    """
    for where in ("settings", "grid"):
        for name in (*config.methods, *getattr(config, where)):
            name, _, budget = name.partition("@")
            method_spec(name)
            if budget and budget not in config.budgets:
                raise ConfigError(f"{where} of {name}@{budget}: budgets are {config.budgets}")
    chosen: dict[tuple[str, str], RunConfig] = {}
    for seed in config.seeds:
        for budget in ("", *config.budgets):
            for name in config.methods:
                if method_spec(name).takes_budget != bool(budget):
                    continue
                if config.repeat_chosen and (name, budget) in chosen:
                    yield dataclasses.replace(chosen[name, budget], seed=seed)
                else:
                    base = _run_config(config, name, budget, seed)
                    axes = _axes(config, name, budget)
                    chosen[name, budget] = yield from _search(base, axes, choose)


def _run_config(config: CompareConfig, name: str, budget: str, seed: int) -> RunConfig:
    """A method with its settings, and the first of the rates and decays to try."""
    training = config.training
    if config.learning_rates:
        training = dataclasses.replace(training, learning_rate=config.learning_rates[0])
    if config.weight_decays:
        training = dataclasses.replace(training, weight_decay=config.weight_decays[0])
    counts = config.counts if budget else "serving"
    method = MethodConfig(name, budget, counts, {})
    run_config = RunConfig(method, config.model, training, seed, config.max_rows)
    for key, value in _of_cell(config.settings, name, budget).items():
        run_config = _with(run_config, key, value)
    return run_config


def _of_cell(settings: Mapping[str, Mapping[str, Any]], name: str, budget: str) -> dict[str, Any]:
    """What is said of a method, and what of this budget instead."""
    return {**settings.get(name, {}), **settings.get(f"{name}@{budget}", {})}


def _axes(config: CompareConfig, name: str, budget: str) -> dict[str, Sequence[Any]]:
    """What to try in turn: keys and their values."""
    grid = _of_cell(config.grid, name, budget)
    for key, values in grid.items():
        if not isinstance(values, (list, tuple)):
            raise ConfigError(f"grid of {name}: {key} must be a list of values, found {values!r}")
    for key, common in (
        ("training.learning_rate", config.learning_rates),
        ("training.weight_decay", config.weight_decays),
    ):
        # Last, so that settings are chosen at the first rate; then what is the method's own.
        grid[key] = (*common, *grid.pop(key, ()))
    return grid


def _search(
    best: RunConfig, axes: Mapping[str, Sequence[Any]], choose: Choose
) -> Generator[RunConfig, None, RunConfig]:
    """Yield what was not yet tried of every axis; return the best of all."""
    tried = [best]
    _check_settings(best)
    yield best
    for key, values in axes.items():
        candidates = [best, *(_with(best, key, value) for value in values)]
        for candidate in candidates:
            if candidate not in tried:
                tried.append(candidate)
                _check_settings(candidate)
                yield candidate
        best = choose(candidates)
    return best


def _check_settings(config: RunConfig) -> None:
    """`ConfigError` for a setting that the method does not have, before hours of runs."""
    method_spec(config.method.name).configure(config.method.settings)


def _with(config: RunConfig, key: str, value: Any) -> RunConfig:
    """A setting of the method, its virtual dimension, or a key of [training], replaced."""
    part, _, name = key.rpartition(".")
    if part == "training":
        check_key(name, (field.name for field in dataclasses.fields(TrainingConfig)), "grid")
        return dataclasses.replace(
            config, training=dataclasses.replace(config.training, **{name: value})
        )
    if key == "embedding_dim":
        return dataclasses.replace(
            config, model=dataclasses.replace(config.model, embedding_dim=value)
        )
    settings = {**config.method.settings, key: value}
    return dataclasses.replace(config, method=dataclasses.replace(config.method, settings=settings))


__all__ = ["cells"]
