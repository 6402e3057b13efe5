import dataclasses
import math

import numpy as np
import pytest
from fake_results import REFERENCE, make_comparison, make_config, make_run
from scipy import stats

from lma.report import best_per_budget, caveats, headline, paired_difference, summarise


def test_paired_difference_equals_scipy():
    runs = make_comparison(seeds=5)
    found = paired_difference(runs, "lma context", "hashed", "64x", "ml-1m")
    of = {
        method: np.array([r.test["auc"] for r in runs if (r.method, r.target) == (method, "64x")])
        for method in ("lma context", "hashed")
    }
    test = stats.ttest_rel(of["lma context"], of["hashed"])
    interval = test.confidence_interval(0.95)
    gaps = of["lma context"] - of["hashed"]
    assert found.n == 5
    assert found.mean == pytest.approx(gaps.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(stats.sem(gaps), rel=1e-9)
    assert (found.low95, found.high95) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_controls_do_not_compete():
    runs = [make_run(name, "16x", 0, validation=auc) for name, auc in (
        ("lma, codes permuted", 0.9), ("low dimension, from contexts, int8", 0.8), ("hashed", 0.7)
    )]  # fmt: skip
    (found,) = best_per_budget(summarise(runs))
    assert (found.best.method, found.num_methods) == ("hashed", 1)


def test_full_tables_are_found_without_a_target():
    runs = make_comparison()
    found = paired_difference(runs, "hashed", "full", "64x", "ml-1m")
    assert found.mean == -paired_difference(runs, "full", "hashed", "64x", "ml-1m").mean
    assert found.mean < 0


def test_only_common_seeds_count():
    runs = [make_run("a", "16x", s, test=0.8 + s / 100) for s in (0, 1)]
    runs += [make_run("b", "16x", s, test=0.7 + s / 50) for s in (1, 2)]
    found = paired_difference(runs, "a", "b", "16x", "ml-1m")
    assert found.n == 1
    assert found.mean == pytest.approx(0.81 - 0.72)
    assert math.isnan(found.standard_error)
    assert math.isnan(found.low95)


def test_paired_difference_without_pairs():
    runs = [make_run("a", "16x", 0), make_run("b", "16x", 1)]
    with pytest.raises(ValueError, match=r"no seed in common.*'a' has seeds \(0,\)"):
        paired_difference(runs, "a", "b", "16x", "ml-1m")
    with pytest.raises(ValueError, match=r"no run of method 'c' at target '16x'.*found"):
        paired_difference(runs, "a", "c", "16x", "ml-1m")
    with pytest.raises(ValueError, match="dataset 'other'"):
        paired_difference(runs, "a", "b", "16x", "other")


def at_16x(method, validation, test, serving=REFERENCE // 16, seed=0):
    return make_run(method, "16x", seed, validation=validation, test=test, serving=serving)


def test_best_is_chosen_on_validation():
    runs = [at_16x("a", 0.8, 0.5), at_16x("b", 0.7, 0.9), make_run(test=0.6)]
    (found,) = best_per_budget(summarise(runs))
    assert found.best.method == "a"
    assert found.runner_up is not None
    assert found.runner_up.method == "b"
    assert found.against_full is not None
    assert found.against_full.mean == pytest.approx(-0.1)
    assert found.against_runner_up is not None
    assert found.against_runner_up.mean == pytest.approx(-0.4)


def test_methods_over_the_budget_do_not_compete():
    runs = [at_16x("a", 0.8, 0.8, serving=REFERENCE // 8), at_16x("b", 0.7, 0.7)]
    (found,) = best_per_budget(summarise(runs))
    assert found.best.method == "b"
    assert [s.method for s in found.over_budget] == ["a"]
    (alone,) = best_per_budget(summarise(runs[:1]))
    assert alone.best.method == "a"
    assert alone.over_budget == ()


def test_a_method_without_auc_never_wins():
    runs = [at_16x("a", math.nan, 0.9), at_16x("b", 0.6, 0.6)]
    (found,) = best_per_budget(summarise(runs))
    assert found.best.method == "b"
    assert best_per_budget(summarise(runs[:1])) == []


def test_headline_of_a_comparison():
    (sentence,) = headline(summarise(make_comparison()))
    assert sentence.startswith("On ml-1m, where the full tables have test AUC 0.8065 in 1.24 MB, ")
    assert "by validation has 0.79" in sentence
    assert sentence.count("lma labelled context") == 3
    assert sentence.count("below") == 3
    assert sentence.endswith(").")


def test_headline_claims_no_difference_that_is_not_there():
    noise = [0.004, -0.003, 0.0]
    runs = [make_run(seed=s, test=0.8) for s in range(3)]
    runs += [at_16x("a", 0.8, 0.8 + noise[s], seed=s) for s in range(3)]
    (sentence,) = headline(summarise(runs))
    assert "not distinguishable over 3 seeds" in sentence
    assert "above" not in sentence


def test_headline_says_one_seed_real_ratio_and_synthetic():
    config = make_config("a", description="synthetic clicks")
    run = dataclasses.replace(at_16x("a", 0.8, 0.8, serving=REFERENCE // 8), config=config)
    (sentence,) = headline(summarise([run, make_run(test=0.7)]))
    assert "On ml-1m (synthetic log)" in sentence
    assert "the one compressed method" in sentence
    assert "in fact 8x" in sentence
    assert "0.1000 above on one seed" in sentence


def test_headline_without_full_without_budgets_without_anything():
    (sentence,) = headline(summarise([at_16x("a", 0.8, 0.8)]))
    assert sentence.endswith("the full tables were not run.")
    (sentence,) = headline(summarise([make_run()]))
    assert "no compressed method was run" in sentence
    (sentence,) = headline(summarise([make_run(test=math.nan)]))
    assert sentence == "On ml-1m, no run has a validation AUC."


def test_caveats_of_a_clean_comparison_are_none():
    assert caveats(summarise(make_comparison())) == []


def test_caveats():
    runs = [
        at_16x("a", 0.8, 0.8, serving=REFERENCE // 4),
        at_16x("b", 0.8, 0.8, seed=0),
        at_16x("b", 0.8, math.nan, seed=1),
        make_run("c", "16x", config=make_config("c", learning_rate=0.1), validation=0.9),
        make_run("c", "16x", seed=1, config=make_config("c", learning_rate=0.2), validation=0.8),
        dataclasses.replace(at_16x("d", 0.8, 0.8), config={"data": {"rows": 7}}, reference_bytes=5),
    ]
    text = "\n".join(caveats(summarise(runs)))
    assert "The full tables were not run" in text
    assert "Fewer than 2 seeds: " in text
    assert "a at 16x (1)" in text
    assert "b at 16x: no finite AUC for seed 1" in text
    assert "a at 16x takes 4x in serving bytes: over its budget" in text
    assert "training.learning_rate = 0.1 is the smallest value tried of 2 configurations" in text
    assert "c at 16x: its 2 configurations (they differ in training.learning_rate)" in text
    assert "differ in their data (description, rows, split)" in text
    assert "differ in their reference bytes" in text
    (only,) = caveats(summarise([make_run()]))
    assert only.startswith("One seed only")
