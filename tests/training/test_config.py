"""Configs: TOML there and back, and what a typing error is told."""

import pytest

from lma.training import CompareConfig, ConfigError, RunConfig, TrainingConfig
from lma.training.config import from_dict, read_toml, to_dict, to_toml, tomllib
from lma.training.methods import METHODS, method_spec


@pytest.mark.parametrize("cls", [RunConfig, CompareConfig])
def test_toml_there_and_back(cls):
    config = from_dict(cls, {"model": {"embedding_dim": 8, "top": [3, 2], "init_std": 1}})
    text = to_toml(config)
    assert from_dict(cls, tomllib.loads(text)) == config
    assert config.model.init_std == 1.0
    assert config.model.top == (3, 2)


def test_none_is_left_out():
    assert "max_rows" not in to_dict(RunConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epoch": 3}}, r"unknown key 'epoch' in \[training\]: did you mean 'epochs'"),
        ({"trainin": {}}, "unknown key 'trainin': did you mean 'training'"),
        ({"zzz": 1}, "known keys: max_rows, method, model, seed, training"),
        ({"seed": "one"}, "seed: expected int, found 'one'"),
        ({"seed": True}, "seed: expected int, found True"),
        ({"model": 3}, "model: expected a table, found 3"),
        ({"model": {"top": [1, "x"]}}, r"model.top\[1\]: expected int, found 'x'"),
        ({"training": {"optimizer": "adm"}}, "training.optimizer must be one of"),
        ({"model": {"name": "dcn"}}, "model.name must be one of .*, found 'dcn'"),
        ({"training": {"epochs": 0}}, "training.epochs must be at least 1"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate must be > 0"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(RunConfig, values)


def test_bad_toml_names_the_file(tmp_path):
    (tmp_path / "x.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"x\.toml: .*line 1"):
        read_toml(tmp_path / "x.toml")


def test_settings_go_where_they_belong():
    allocation, signatures = method_spec("lma-rows").configure({"power": 3, "num_codes": 5})
    assert (allocation.power, signatures.num_codes, signatures.similarity) == (3, 5, "rows")


def test_a_method_or_setting_that_is_not():
    with pytest.raises(ConfigError, match="did you mean 'hashed'"):
        method_spec("hashd")
    with pytest.raises(ConfigError, match=r"unknown key 'powr' in .*did you mean 'power'"):
        method_spec("lma-rows").configure({"powr": 3})
    with pytest.raises(ConfigError, match="unknown key 'num_codes'"):
        method_spec("hashed").configure({"num_codes": 3})


def test_labels_differ():
    assert len({spec.label for spec in METHODS.values()}) == len(METHODS)


def test_rate_rises_and_falls():
    from lma.training.optimizers import rate_factor

    config = TrainingConfig(warmup_steps=4, decay=0.5)
    factors = [rate_factor(step, 12, config) for step in range(13)]
    assert factors[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert factors[12] == 0.5
    assert factors[8] == 0.75
