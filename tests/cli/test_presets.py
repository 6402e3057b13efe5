"""The paper's experiments as one command, on small generated logs in the same file formats."""

import json

import pytest
import torch
from test_cli import lma

from lma.cli.preset import load_preset, preset_names
from lma.data import write_synthetic
from lma.data.synthetic_avazu import write_synthetic_avazu
from lma.models import DLRM
from lma.nn import EmbeddingBagCollection, EmbeddingBagConfig
from lma.results import read_results
from lma.training import CompareConfig, ConfigError
from lma.training.cells import cells
from lma.training.config import from_dict

SHORT = ("--epochs", "1", "--budgets", "4x", "--methods", "full,hashed,lma-rows")
SHORT += ("--set", "training.batch_size=512", "--set", "settings.lma-rows.embedding_dim=32")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    write_synthetic(folder / "train.txt", rows=3000, scale=1 / 4096)
    write_synthetic_avazu(folder / "train.csv", rows=3000, scale=1 / 4096)
    return folder


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_a_comparison_of_methods_there_are(name):
    config = from_dict(CompareConfig, load_preset(name).comparison)
    runs = list(cells(config))
    assert len(runs) == 1 + (len(config.methods) - 1) * 5
    assert {run.method.counts for run in runs if run.method.budget} == {"weights"}
    dims = {(run.method.name, run.model.embedding_dim) for run in runs}
    assert ("lma-rows", 256) in dims
    assert all(dim == 16 for method, dim in dims if method != "lma-rows")


def test_the_published_sizes():
    config = from_dict(CompareConfig, load_preset("paper-criteo").comparison).model
    tables = [EmbeddingBagConfig(10, config.embedding_dim, "t")]
    model = DLRM(EmbeddingBagCollection(tables, budget=400, method=_hashed()), 13,
                 bottom=config.bottom, top=config.top)  # fmt: skip
    sizes = [[m.out_features for m in mlp if isinstance(m, torch.nn.Linear)]
             for mlp in (model.bottom, model.top)]  # fmt: skip
    assert sizes == [[512, 256, 64, 16], [512, 256, 1]]


def _hashed():
    from lma.allocation import Hashed

    return Hashed()


@pytest.mark.parametrize(("preset", "file"), [("paper-criteo", "train.txt"),
                                              ("paper-avazu", "train.csv")])  # fmt: skip
def test_one_command_from_the_download_to_the_table(logs, tmp_path, capsys, preset, file):
    words = ("compare", "--preset", preset, "--data", logs / file, tmp_path / "r.jsonl", *SHORT)
    said = lma(*words, capsys=capsys).out.replace("\n", " ")
    assert "about 3,00" in said
    assert "3 runs of at most 1 epochs" in said
    assert "lma rows" in said
    results = {r.method: r for r in read_results(tmp_path / "r.jsonl")}
    assert set(results) == {"full", "hashed", "lma rows"}
    assert results["lma rows"].config["model"]["embedding_dim"] == 32
    assert results["lma rows"].bytes["weights"] <= results["hashed"].bytes["weights"] + 4
    assert results["hashed"].config["training"]["optimizer"] == "sgd"
    # The shards are made once; a second run repeats nothing.
    meta = tmp_path / "data" / "meta.json"
    assert json.loads(meta.read_text())["split"]["kind"] == "time"
    before = meta.stat().st_mtime_ns
    said = lma(*words, capsys=capsys).out
    assert "preparing" not in said
    assert meta.stat().st_mtime_ns == before
    assert len(read_results(tmp_path / "r.jsonl")) == 3


def test_a_dry_run_leaves_nothing_behind(logs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("compare", "--preset", "paper-criteo", "--data", logs / "train.txt", "--dry-run")
    said = lma(*words, *SHORT, "--max-rows", "500", capsys=capsys).out.replace("\n", " ")
    assert "500 rows each" in said
    for word in ("preparing", "rows/s at 16 dimensions", "at 32 dimensions", "of memory", "disk"):
        assert word in said
    assert not list(tmp_path.iterdir())


def test_flags_and_files_override_a_preset(tmp_path):
    from lma.cli.settings import load_config

    (tmp_path / "c.toml").write_text("[training]\nlearning_rate = 0.05\n[settings.hashed]\n")
    base = load_preset("paper-criteo").comparison
    config = load_config(
        CompareConfig, tmp_path / "c.toml", {"training.epochs": 2}, ["settings.lma-rows.power=4"],
        base,
    )  # fmt: skip
    assert (config.training.learning_rate, config.training.epochs) == (0.05, 2)
    assert (config.training.optimizer, config.training.batch_size) == ("sgd", 2048)
    assert config.settings["lma-rows"]["power"] == 4
    assert config.settings["lma-rows"]["num_codes"] == 255
    assert base["settings"]["lma-rows"]["power"] == 2


def test_mistakes_are_told(logs, tmp_path, capsys):
    with pytest.raises(ConfigError, match="did you mean 'paper-criteo'"):
        load_preset("paper-creteo")
    data = ("--data", logs / "train.txt")
    lma("compare", *data, capsys=capsys, status=2)
    lma("compare", "--preset", "paper-criteo", *data, "a", "b", capsys=capsys, status=2)
    lma("compare", tmp_path / "only-one", capsys=capsys, status=2)
    said = lma("compare", "--preset", "paper-criteo", "--data", tmp_path / "none.txt",
               capsys=capsys, status=1)  # fmt: skip
    assert "no such file" in said.err.replace("\n", " ")
