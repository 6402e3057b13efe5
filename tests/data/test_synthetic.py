from __future__ import annotations

import gzip
import hashlib

import numpy as np
import polars as pl
import pytest
from log_files import CRITEO_COLUMNS, read_with_csv
from sklearn.metrics import roc_auc_score

from lma.data import synthetic as module
from lma.data import write_synthetic
from lma.data.synthetic import CRITEO_CARDINALITIES, SyntheticLog


def test_the_published_cardinalities():
    assert len(CRITEO_CARDINALITIES) == 26
    assert sum(CRITEO_CARDINALITIES) == 33_762_577


def test_same_arguments_same_bytes(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c", "d.gz", "e.gz")]
    for path, seed in zip(paths, (0, 0, 1, 0, 0), strict=True):
        write_synthetic(path, rows=500, scale=1e-3, seed=seed)
    data = [path.read_bytes() for path in paths]
    assert data[0] == data[1] != data[2]
    assert data[3] == data[4]
    assert gzip.decompress(data[3]) == data[0]


def test_the_log_does_not_depend_on_the_chunk_size(tmp_path, monkeypatch):
    a = write_synthetic(tmp_path / "a", rows=1000).read_bytes()
    monkeypatch.setattr(module, "CHUNK_ROWS", 300)
    assert write_synthetic(tmp_path / "b", rows=1000).read_bytes() == a


@pytest.mark.parametrize(
    ("strength", "digest"),
    [
        (0.8, "9db9a64cdbce90f5eb68ef147b7130a1f85e3295f46c72dfb0a2bd37060de377"),
        (0.0, "7c965516fcd0601e79883955901b6c5a35d974f3c748203235ace341f7b2f33b"),
    ],
)
def test_the_generator_is_frozen(tmp_path, strength, digest):
    # Methods are compared on its logs: a change of theirs is a new GENERATOR_VERSION.
    path = write_synthetic(tmp_path / "log", rows=500, scale=1e-3, semantic_strength=strength)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert module.GENERATOR_VERSION == 1


def test_shape_of_the_log(tmp_path):
    rows = read_with_csv(write_synthetic(tmp_path / "log", rows=5000))
    assert len(rows) == 5000
    labels = [row["label"] for row in rows]
    assert set(labels) == {"0", "1"}
    assert 0.2 < labels.count("1") / len(labels) < 0.3
    for name in CRITEO_COLUMNS[14:]:
        assert all(len(row[name]) in (0, 8) for row in rows)
        assert all(int(row[name] or "0", 16) >= 0 for row in rows)
    assert any(row["I1"] == "" for row in rows)
    assert any(row["I2"].startswith("-") for row in rows)
    assert any(row["C26"] == "" for row in rows)


def test_fields_are_hierarchical():
    generator = SyntheticLog(scale=1 / 256, seed=0, semantic_strength=0.8)
    frame = pl.concat([f for _, f in generator.frames(20_000)])
    # A household (C16) is a function of the user (C3) but for five percent of noise.
    agreed = frame.drop_nulls(["C3", "C16"]).with_columns(
        pl.col("C16").mode().first().over("C3").alias("usual")
    )
    assert (agreed["C16"] == agreed["usual"]).mean() > 0.9


def test_strength_zero_says_nothing_through_clusters():
    row = np.arange(40_000)
    auc = {}
    for strength in (0.0, 1.0):
        generator = SyntheticLog(scale=1 / 256, seed=0, semantic_strength=strength)
        labels, _, _ = generator.draw(row)
        clustered = generator._affinity[
            generator._cluster("user", row), generator._cluster("ad", row)
        ]
        auc[strength] = roc_auc_score(labels, clustered)
        logit, _, _ = generator.draw_logits(row)
        assert 0.8 < roc_auc_score(labels, logit) < 0.9
    assert abs(auc[0.0] - 0.5) < 0.02
    assert auc[1.0] > 0.75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 256}, "scale is the share"),
        ({"scale": 0}, "scale is the share"),
        ({"semantic_strength": 1.5}, "semantic_strength"),
        ({"rows": -1}, "rows"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_synthetic(tmp_path / "log", **{"rows": 10, **arguments})
    assert not list(tmp_path.iterdir())
