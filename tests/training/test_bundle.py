"""A saved model scores raw values elsewhere, exactly as it did here."""

import json
import os

import numpy as np
import polars as pl
import pytest
import torch

import lma
import lma.data
from lma.errors import FormatError
from lma.training import (
    METHODS,
    MethodConfig,
    RunConfig,
    SignatureShelf,
    TrainingConfig,
    load,
    predict,
    run,
    save,
)
from lma.training.bundle import Bundle, check_same_ids


@pytest.fixture(scope="module")
def shelf(log):
    return SignatureShelf(log)


def trained(log, shelf, name="lma-labelled-context", budget="8x"):
    config = RunConfig(
        MethodConfig(name, budget), training=TrainingConfig(epochs=1, batch_size=512)
    )
    return run(log, config, shelf)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back(log, shelf, tmp_path, name):
    model, result = trained(log, shelf, name)
    save(model, tmp_path / "model", encoder=log.encoder, info={"note": 1})
    bundle = load(tmp_path / "model")
    assert bundle.info == {"note": 1}
    before, _ = predict(model, log, "test")
    after, _ = predict(bundle.model, log, "test")
    assert np.array_equal(before, after)
    held = sum(t.nbytes for t in bundle.model.embeddings.state_dict().values())
    assert held == result.bytes["serving"]


def test_raw_values_are_scored_elsewhere(log, shelf, tmp_path):
    model, _ = trained(log, shelf)
    save(model, tmp_path / "model", encoder=log.encoder)
    os.rename(tmp_path / "model", tmp_path / "moved")
    source = log.path.parent / "log.tsv"
    frame = next(iter(lma.data.read_raw("criteo", [source], max_rows=50)))
    bundle = load(tmp_path / "moved")
    batch = log.encoder.encode(frame)
    with torch.inference_mode():
        expected = torch.sigmoid(model.eval()(batch.dense, batch.values, batch.offsets).double())
    assert np.array_equal(bundle.predict(frame), expected.numpy())
    # New values and missing ones are scored too.
    odd = frame.with_columns(C1=pl.lit("never seen"), C2=pl.lit(None, pl.String))
    assert np.isfinite(bundle.predict(odd)).all()
    assert len(bundle.predict(frame.head(0))) == 0


def test_a_folder_of_something_else_is_left_alone(log, shelf, tmp_path):
    model, _ = trained(log, shelf, "hashed")
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(FileExistsError, match="is not a saved model"):
        save(model, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_saving_again_replaces(log, shelf, tmp_path):
    for name in ("hashed", "full"):
        model, _ = trained(log, shelf, name)
        save(model, tmp_path / "model")
    assert type(load(tmp_path / "model").model.embeddings.allocation).__name__ == "FullAllocation"


def test_a_full_disk_leaves_the_old_model(log, shelf, tmp_path):
    resource = pytest.importorskip("resource")
    model, _ = trained(log, shelf, "hashed")
    save(model, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match=r"m/model\.safetensors"):
            save(model, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_damage_is_told(log, shelf, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lma\.json is missing"):
        load(tmp_path)
    model, _ = trained(log, shelf, "hashed")
    save(model, tmp_path / "m")
    with pytest.raises(ValueError, match="without an encoder"):
        load(tmp_path / "m").predict(pl.DataFrame({"a": [1]}))
    weights = tmp_path / "m" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    with pytest.raises(FormatError, match="damaged model"):
        load(tmp_path / "m")
    weights.write_bytes(content)
    description = json.loads((tmp_path / "m" / "lma.json").read_text())
    (tmp_path / "m" / "lma.json").write_text(json.dumps({**description, "hash_version": 99}))
    with pytest.raises(FormatError, match="99"):
        load(tmp_path / "m")
    (tmp_path / "m" / "lma.json").write_text("{")
    with pytest.raises(FormatError, match="damaged model"):
        load(tmp_path / "m")


def test_other_models_are_refused(tmp_path):
    with pytest.raises(TypeError, match="found Linear"):
        save(torch.nn.Linear(1, 1), tmp_path / "x")


def test_a_dataset_of_other_ids_is_refused(log, shelf, tmp_path):
    model, _ = trained(log, shelf, "hashed")
    save(model, tmp_path / "model", encoder=log.encoder)
    bundle = load(tmp_path / "model")
    check_same_ids(bundle, log)
    lma.data.write_synthetic(tmp_path / "b.tsv", rows=3000, scale=1 / 4096, seed=4)
    other = lma.data.prepare("criteo", [tmp_path / "b.tsv"], tmp_path / "b")
    with pytest.raises(ValueError, match="use the dataset it was trained on"):
        check_same_ids(bundle, other)


def test_a_dictionary_of_as_many_other_values_is_refused(tmp_path):
    """Every category renamed: sizes and supports stay, keys do not."""
    lma.data.write_synthetic(tmp_path / "a.tsv", rows=300, scale=1 / 4096)
    lines = [line.split("\t") for line in (tmp_path / "a.tsv").read_text().splitlines()]
    swap = str.maketrans("0123456789abcdef", "123456789abcdef0")
    renamed = ["\t".join([*row[:14], *(c.translate(swap) for c in row[14:])]) for row in lines]
    (tmp_path / "b.tsv").write_text("\n".join(renamed) + "\n")
    one, two = (
        lma.data.prepare("criteo", [tmp_path / f"{n}.tsv"], tmp_path / n) for n in ("a", "b")
    )
    assert one.schema.features == two.schema.features
    check_same_ids(Bundle(torch.nn.Linear(1, 1), one.encoder, {}), one)
    with pytest.raises(ValueError, match="dictionary differs from the model's"):
        check_same_ids(Bundle(torch.nn.Linear(1, 1), one.encoder, {}), two)
