import dataclasses
import math

import numpy as np
import pytest
from fake_results import REFERENCE, make_comparison, make_config, make_run

from lma.report import summarise
from lma.report.budget import budget_bytes, is_over
from lma.results import RunResult


def test_empty_results_are_an_error():
    with pytest.raises(ValueError, match="no results to report"):
        summarise([])


def test_numbers_equal_numpy():
    runs = make_comparison(seeds=5)
    cell = next(s for s in summarise(runs) if (s.method, s.target) == ("lma rows", "64x"))
    mine = [r for r in runs if (r.method, r.target) == ("lma rows", "64x")]
    expected = {
        "test_auc": [r.test["auc"] for r in mine],
        "test_log_loss": [r.test["log_loss"] for r in mine],
        "validation_auc": [r.validation["auc"] for r in mine],
        "train_seconds": [r.train_seconds for r in mine],
        "compression": [r.compression for r in mine],
        "weight_compression": [r.weight_compression for r in mine],
        **{
            name: [r.bytes[name] for r in mine]
            for name in ("weights", "signatures", "index", "serving", "training")
        },
    }
    for name, values in expected.items():
        found = getattr(cell, name)
        assert found.n == 5
        assert found.mean == pytest.approx(np.mean(values), rel=1e-12), name
        assert found.standard_error == pytest.approx(np.std(values, ddof=1) / np.sqrt(5), rel=1e-9)
    assert cell.seeds == (0, 1, 2, 3, 4)
    assert cell.reference_bytes == REFERENCE


def test_order_is_full_then_budgets_then_auc():
    order = [(s.method, s.target) for s in summarise(reversed(make_comparison()))]
    assert order[0] == ("full", "")
    assert list(dict.fromkeys(t for _, t in order)) == ["", "16x", "64x", "256x"]
    assert next(m for m, t in order if t == "16x") == "lma labelled context"
    assert [m for m, t in order if t == "16x"][-1] == "hashing trick"


def test_byte_targets_and_ratios_are_ordered_by_bytes():
    runs = [make_run("a", t) for t in ("1000x", "4x", "64MB", "100kB", "other")]
    assert [s.target for s in summarise(runs)] == ["64MB", "4x", "100kB", "1000x", "other"]


def test_one_line_survives_the_file_format():
    runs = make_comparison(seeds=1)
    again = [RunResult.from_json(r.to_json()) for r in runs]
    found = [s.test_auc.mean for s in summarise(again)]
    assert found == [s.test_auc.mean for s in summarise(runs)]


def grid(scores, **shared):
    """One run per (learning rate, seed): {lr: [(validation, test), ...]}."""
    return [
        make_run(
            "hashed", "16x", s, validation=v, test=t, config=make_config("h", learning_rate=lr)
        )
        for lr, pairs in scores.items()
        for s, (v, t) in enumerate(pairs)
    ]


def test_configuration_is_chosen_on_validation_and_never_on_test():
    runs = grid({1e-4: [(0.70, 0.99)], 1e-3: [(0.75, 0.60)], 1e-2: [(0.72, 0.98)]})
    (cell,) = summarise(runs)
    assert cell.chosen == {"training.learning_rate": 1e-3}
    assert cell.test_auc.mean == 0.60
    assert cell.num_configs == 3
    assert cell.edges == ()


def test_configurations_are_compared_on_common_seeds():
    # On seed 0 the first is better; its other seeds would pull its mean below the second's.
    runs = grid({1e-3: [(0.80, 0.5), (0.60, 0.5), (0.60, 0.5)], 1e-2: [(0.70, 0.5)]})
    (cell,) = summarise(runs)
    assert cell.chosen == {"training.learning_rate": 1e-3}
    assert len(cell.runs) == 3
    assert cell.num_common_seeds == 1


def test_a_repeated_winner_stands_against_others_that_were_repeated():
    # Best on seed 0, the only one that all have, and worse on the three that two of them have.
    lucky, steady = [(0.80, 0.1), (0.60, 0.1), (0.60, 0.1)], [(0.75, 0.9), (0.74, 0.9), (0.76, 0.9)]
    (cell,) = summarise(grid({1e-3: lucky, 1e-2: steady, 1e-1: [(0.70, 0.5)]}))
    assert cell.chosen == {"training.learning_rate": 1e-2}
    assert cell.test_auc.mean == 0.9


def test_a_diverged_configuration_loses_to_one_that_did_not():
    runs = grid({1e-3: [(0.70, 0.7), (0.70, 0.7)], 1e-2: [(0.90, 0.9), (math.nan, 0.5)]})
    (cell,) = summarise(runs)
    assert cell.chosen == {"training.learning_rate": 1e-3}


def test_values_at_the_edge_of_the_grid_are_named():
    (cell,) = summarise(grid({1e-4: [(0.7, 0.7)], 1e-3: [(0.6, 0.7)]}))
    assert cell.edges == ("training.learning_rate = 0.0001 is the smallest value tried",)
    (cell,) = summarise(grid({1e-4: [(0.6, 0.7)], 1e-3: [(0.7, 0.7)]}))
    assert cell.edges == ("training.learning_rate = 0.001 is the largest value tried",)


def test_zero_is_no_edge():
    (cell,) = summarise(grid({0.0: [(0.7, 0.7)], 1e-3: [(0.6, 0.7)]}))
    assert cell.edges == ()


def test_seeds_and_data_make_no_configurations():
    configs = [make_config("h") for _ in range(3)]
    for number, config in enumerate(configs):
        config["model"]["seed"] = config["training"]["data_seed"] = number
        config["data"]["path"] = f"part-{number}"
    runs = [make_run("hashed", "16x", i, config=config) for i, config in enumerate(configs)]
    (cell,) = summarise(runs)
    assert cell.num_configs == 1
    assert len(cell.runs) == 3


def test_values_that_are_not_numbers_may_differ_too():
    configs = [make_config("h") for _ in range(2)]
    configs[0]["training"]["optimizer"] = "adamw"
    configs[1]["training"]["optimizer"] = ["adagrad", None]
    runs = [
        make_run("hashed", "16x", validation=0.7 + i, config=config)
        for i, config in enumerate(configs)
    ]
    (cell,) = summarise(runs)
    assert cell.chosen == {"training.optimizer": ["adagrad", None]}
    assert cell.edges == ()


def test_a_later_line_replaces_an_earlier_one():
    (cell,) = summarise([make_run(test=0.1), make_run(test=0.2)])
    assert (cell.test_auc.mean, cell.test_auc.n) == (0.2, 1)


def test_missing_and_null_metrics():
    run = dataclasses.replace(make_run(), test={"auc": None}, validation={})
    (cell,) = summarise([run, make_run(seed=1, test=0.8)])
    assert (cell.test_auc.mean, cell.test_auc.n) == (0.8, 1)
    assert cell.failed_seeds == (0,)


def test_synthetic_is_what_the_description_says():
    config = make_config("full", description="A Synthetic log of Criteo's shape")
    (cell,) = summarise([make_run(config=config)])
    assert cell.is_synthetic
    (cell,) = summarise([make_run(config={})])
    assert not cell.is_synthetic
    assert cell.description == ""


def test_budgets():
    assert budget_bytes("16x", 1600) == 100
    assert budget_bytes("1.5 kB", 0) == 1500
    assert budget_bytes("64MB", 0) == 64e6
    assert budget_bytes("0x", 1) is None
    assert budget_bytes("sixteen", 1) is None
    assert not is_over("16x", 1600, 105)
    assert is_over("16x", 1600, 106)
    assert not is_over("", 1600, 10**9)
    assert not is_over("16x", 1600, math.nan)
