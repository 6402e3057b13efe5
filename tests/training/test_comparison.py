"""Cells, resuming, and what the result lines say."""

import dataclasses

import pytest

import lma.data
from lma.results import read_results
from lma.training import CompareConfig, RunConfig, TrainingConfig, compare
from lma.training.cells import cells
from lma.training.config import ConfigError, MethodConfig, ModelConfig
from lma.training.experiment import config_of, identity_of

CONFIG = CompareConfig(
    methods=("full", "hashed", "lma-rows"),
    budgets=("8x",),
    seeds=(0, 1),
    training=TrainingConfig(epochs=1, batch_size=1024),
)


def test_cells_are_every_combination_and_full_once_per_seed():
    config = dataclasses.replace(CONFIG, budgets=("4x", "8x"), learning_rates=(0.1, 0.2))
    found = [
        (c.method.name, c.method.budget, c.training.learning_rate, c.seed) for c in cells(config)
    ]
    assert len(found) == len(set(found)) == 2 * 2 * (1 + 2 * 2)
    assert ("full", "", 0.1, 1) in found


def test_a_grid_is_searched_in_turn_and_only_what_won_is_repeated():
    config = dataclasses.replace(
        CONFIG,
        methods=("frequency-cutoff", "lma"),
        learning_rates=(0.1, 0.2),
        weight_decays=(0.0, 0.5),
        repeat_chosen=True,
        grid={"frequency-cutoff": {"dim": [16, 2]}, "frequency-cutoff@8x": {"dim": [4, 2]}},
    )
    seen = []

    def choose(candidates):
        assert all(c in seen for c in candidates)
        return candidates[-1]

    seen.extend(cells(config, choose))  # one by one: choose sees what came before
    tried = [
        (c.seed, c.method.settings.get("dim"), c.training.learning_rate, c.training.weight_decay)
        for c in seen
        if c.method.name == "frequency-cutoff"
    ]
    assert tried == [
        (0, None, 0.1, 0.0), (0, 4, 0.1, 0.0), (0, 2, 0.1, 0.0),
        (0, 2, 0.2, 0.0),
        (0, 2, 0.2, 0.5),
        (1, 2, 0.2, 0.5),
    ]  # fmt: skip
    own = [c for c in seen if c.method.name == "lma"]
    assert [c.seed for c in own] == [0, 0, 0, 1]
    assert len(list(cells(config))) == len(seen)


def test_a_methods_own_rates_are_tried_beside_the_common_ones():
    config = dataclasses.replace(
        CONFIG, methods=("full",), seeds=(0,), weight_decays=(0.0, 0.1),
        grid={"full": {"training.weight_decay": [0.5], "training.learning_rate": [0.3]}},
    )  # fmt: skip
    found = [(c.training.learning_rate, c.training.weight_decay) for c in cells(config)]
    assert found == [(0.001, 0.0), (0.3, 0.0), (0.001, 0.1), (0.001, 0.5)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"hashed": {"block_sise": [4]}}, "did you mean 'block_size'"),
        ({"hashed": {"block_size": 4}}, "grid of hashed: block_size must be a list"),
        ({"hashed@2x": {"block_size": [4]}}, "grid of hashed@2x: budgets are"),
        ({"hashed": {"training.epoch": [4]}}, "did you mean 'epochs'"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(grid, message):
    with pytest.raises(ConfigError, match=message):
        list(cells(dataclasses.replace(CONFIG, grid=grid)))


def test_validation_chooses_what_other_seeds_repeat(log, tmp_path):
    config = dataclasses.replace(
        CONFIG, methods=("hashed",), learning_rates=(1e-6, 0.05), repeat_chosen=True
    )
    found, _ = compare(log, config, tmp_path / "r.jsonl")
    assert [(r.seed, r.config["training"]["learning_rate"]) for r in found] == [
        (0, 1e-6), (0, 0.05), (1, 0.05)
    ]  # fmt: skip
    assert found[1].validation["auc"] > found[0].validation["auc"]


def test_what_does_not_fit_is_never_chosen(log, tmp_path):
    config = dataclasses.replace(
        CONFIG, methods=("frequency-cutoff",), budgets=("500",), repeat_chosen=True,
        grid={"frequency-cutoff": {"dim": [1]}},
    )  # fmt: skip
    found, skipped = compare(log, config, tmp_path / "r.jsonl")
    assert [(r.seed, r.config["method"]["settings"]["dim"]) for r in found] == [(0, 1), (1, 1)]
    assert [c.config.method.settings for c in skipped] == [{}]


def test_settings_may_differ_by_budget():
    settings = {"lma-rows": {"power": 2, "num_codes": 9}, "lma-rows@8x": {"power": 1}}
    config = dataclasses.replace(CONFIG, budgets=("4x", "8x"), settings=settings)
    found = {c.method.budget: c.method.settings for c in cells(config) if "lma" in c.method.name}
    assert found == {
        "4x": {"power": 2, "num_codes": 9},
        "8x": {"power": 1, "num_codes": 9},
    }
    config = dataclasses.replace(config, settings={"lma-rows@16x": {}})
    with pytest.raises(ConfigError, match="lma-rows@16x"):
        list(cells(config))


def test_a_method_may_have_another_virtual_dimension():
    settings = {"hashed": {"embedding_dim": 64, "block_size": 2}, "hashed@4x": {"embedding_dim": 8}}
    config = dataclasses.replace(CONFIG, budgets=("4x", "8x"), settings=settings, seeds=(0,))
    found = {(c.method.name, c.method.budget): c for c in cells(config)}
    dims = {key: c.model.embedding_dim for key, c in found.items()}
    assert dims == {
        ("full", ""): 16, ("hashed", "4x"): 8, ("hashed", "8x"): 64,
        ("lma-rows", "4x"): 16, ("lma-rows", "8x"): 16,
    }  # fmt: skip
    assert found["hashed", "8x"].method.settings == {"block_size": 2}


def test_lines_from_before_there_was_a_model_to_choose_stay_valid(log):
    assert "name" not in config_of(log, RunConfig())["model"]
    assert config_of(log, RunConfig(model=ModelConfig("gmf")))["model"]["name"] == "gmf"


def test_an_unknown_method_fails_before_anything_runs(log, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'hashed'"):
        compare(log, dataclasses.replace(CONFIG, methods=("hashe",)), tmp_path / "r.jsonl")


def test_stopped_and_repeated_it_runs_only_what_is_missing(log, tmp_path):
    path = tmp_path / "r.jsonl"
    started = []

    def note(run, number, total):
        started.append((run.method.name, run.seed))
        if len(started) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(log, CONFIG, path, progress=note)
    assert len(read_results(path)) == 2
    found, skipped = compare(log, CONFIG, path, progress=note)
    assert (len(found), skipped) == (6, [])
    assert len(started) == 3 + 4
    again, _ = compare(log, CONFIG, path, progress=note)
    assert len(started) == 7
    assert [r.to_json() for r in again] == [r.to_json() for r in found]


def test_runs_repeat_exactly(log, tmp_path):
    config = dataclasses.replace(CONFIG, methods=("lma-rows",), seeds=(5,))
    (first,), _ = compare(log, config, tmp_path / "a.jsonl")
    (second,), _ = compare(log, config, tmp_path / "b.jsonl")
    assert first.test == second.test
    assert first.curve == second.curve


def test_a_budget_too_small_is_left_out_with_its_reason(log, tmp_path):
    config = dataclasses.replace(CONFIG, methods=("low-dimension", "hashed"), budgets=("50x",))
    found, skipped = compare(log, config, tmp_path / "r.jsonl")
    assert {r.method for r in found} == {"hashed"}
    assert len(skipped) == 2
    assert "less than one float" in skipped[0].reason


def test_budgets_hold_and_bytes_are_counted_alike(log, tmp_path):
    methods = ("hashed", "hashing-trick", "frequency-cutoff", "lma-rows", "lma-labelled-context")
    config = dataclasses.replace(CONFIG, methods=methods, seeds=(0,))
    found, _ = compare(log, config, tmp_path / "r.jsonl")
    for result in found:
        assert 0.93 < result.bytes["serving"] * 8 / result.reference_bytes <= 1, result.method
        assert result.reference_bytes == log.num_tokens() * 64


def test_another_log_of_as_many_rows_is_another_cell(log, tmp_path):
    other = lma.data.prepare(
        "criteo", [log.path.parent / "log.tsv"], tmp_path / "d", name=log.schema.name, min_count=2
    )
    assert other.num_rows("train") == log.num_rows("train")
    assert identity_of(log, RunConfig()) != identity_of(other, RunConfig())


def test_a_method_that_cannot_serve_the_log_is_left_out(log, tmp_path):
    hashed = lma.data.prepare("criteo", [log.path.parent / "log.tsv"], tmp_path / "d", ids="hashed")
    config = dataclasses.replace(CONFIG, seeds=(0,), budgets=("60kB",))
    found, skipped = compare(hashed, config, tmp_path / "r.jsonl")
    assert {r.method for r in found} == {"hashed", "lma rows"}
    assert "needs num_embeddings" in skipped[0].reason
    assert not list(tmp_path.glob(".*.pt"))  # checkpoints go with their runs


def test_weights_alone_may_be_counted(log, tmp_path):
    config = dataclasses.replace(CONFIG, methods=("lma-rows",), seeds=(0,), counts="weights")
    (result,), _ = compare(log, config, tmp_path / "r.jsonl")
    assert result.weight_compression == pytest.approx(8, rel=0.01)
    assert result.compression < 8


def test_a_cell_is_named_by_everything_but_its_seed(log):
    base = RunConfig()
    other = RunConfig(method=MethodConfig(settings={"power": 3}))
    assert identity_of(log, base) != identity_of(log, other)
    assert identity_of(log, base) != identity_of(log, dataclasses.replace(base, seed=1))
    assert identity_of(log, base) == identity_of(log, RunConfig())
