"""Result lines that look like those of a real comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from lma.results import ByteCount, RunResult

TOKENS, DIM = 19_400, 16
REFERENCE = TOKENS * DIM * 4
# Method -> test AUC at 16x, 64x, 256x, and the share of signatures and index in its bytes.
METHODS: dict[str, tuple[tuple[float, ...], float, float]] = {
    "lma labelled context": ((0.7979, 0.7901, 0.7795), 0.38, 0.06),
    "lma context": ((0.7951, 0.7862, 0.7731), 0.38, 0.06),
    "lma rows": ((0.7889, 0.7689, 0.7440), 0.38, 0.06),
    "low dimension": ((0.7928, 0.7820, 0.7605), 0.0, 0.0),
    "frequency cut-off": ((0.7933, 0.7744, 0.7466), 0.0, 0.09),
    "hashed": ((0.7926, 0.7656, 0.7389), 0.0, 0.0),
    "robe": ((0.7919, 0.7668, 0.7402), 0.0, 0.0),
    "quotient-remainder": ((0.7890, 0.7640, 0.7350), 0.0, 0.0),
    "hashing trick": ((0.7850, 0.7582, 0.7301), 0.0, 0.0),
}
TARGETS = ("16x", "64x", "256x")


def make_run(
    method: str = "full",
    target: str = "",
    seed: int = 0,
    *,
    dataset: str = "ml-1m",
    test: float = 0.80,
    validation: float | None = None,
    serving: int = REFERENCE,
    signatures: int = 0,
    index: int = 0,
    curve: tuple[dict[str, float], ...] = (),
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> RunResult:
    """One result line; what is not said is plausible."""
    weights = serving - signatures - index
    fields: dict[str, Any] = {
        "dataset": dataset,
        "method": method,
        "target": target,
        "seed": seed,
        "bytes": ByteCount(weights, signatures, index, 3 * weights).to_dict(),
        "reference_bytes": REFERENCE,
        "validation": {
            "auc": test + 0.001 if validation is None else validation,
            "log_loss": 0.53,
            "rows": 100_021,
        },
        "test": {"auc": test, "log_loss": 1.33 - test, "rows": 100_021},
        "curve": curve,
        "train_seconds": 41.5 + seed,
        "config": config if config is not None else make_config(method),
        "environment": {"machine": "x86_64, 2 cores", "python": "3.11.7", "commit": "49c3924"},
    }
    return RunResult(**{**fields, **changes})


def make_config(
    method: str, *, learning_rate: float = 1e-3, description: str = "MovieLens-1M, rating >= 4"
) -> dict[str, Any]:
    """A config with the sections of a real one."""
    return {
        "data": {"description": description, "split": "shuffle 80/10/10"},
        "method": {"name": method, "dim": DIM},
        "model": {"bottom": [64, 16], "top": [64, 1], "seed": 3},
        "training": {"learning_rate": learning_rate, "weight_decay": 0.0, "epochs": 4},
    }


def make_comparison(
    seeds: int = 3, *, dataset: str = "ml-1m", description: str = "MovieLens-1M, rating >= 4"
) -> list[RunResult]:
    """Full tables and every method at three budgets, with noise over seeds."""
    rng = np.random.default_rng(7)
    results = []
    for seed in range(seeds):
        level = 0.8065 + rng.normal(0, 0.0004)
        config = make_config("full", description=description)
        results.append(
            make_run(
                seed=seed, dataset=dataset, test=level, curve=make_curve(level, rng), config=config
            )
        )
        for method, (levels, signatures, index) in METHODS.items():
            for place, target in enumerate(TARGETS):
                level = levels[place] + rng.normal(0, 0.0005)
                serving = int(REFERENCE / float(target[:-1]) * (0.93 if "robe" in method else 1.0))
                results.append(
                    make_run(
                        method,
                        target,
                        seed,
                        dataset=dataset,
                        test=level,
                        validation=level + 0.001 + rng.normal(0, 0.0002),
                        serving=serving,
                        signatures=int(serving * signatures),
                        index=int(serving * index),
                        curve=make_curve(level, rng),
                        config=make_config(method, description=description),
                    )
                )
    return results


def make_curve(level: float, rng: np.random.Generator) -> tuple[dict[str, float], ...]:
    """Eight evaluations that approach a level."""
    return tuple(
        {
            "epoch": step / 2,
            "step": step * 3125,
            "train_loss": 0.5 + 0.2 / step,
            "auc": float(level - 0.09 * np.exp(-0.75 * step) + rng.normal(0, 0.0003)),
            "log_loss": 0.55,
        }
        for step in range(1, 9)
    )
