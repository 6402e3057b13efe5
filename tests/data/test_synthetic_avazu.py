"""The generated Avazu file: what the reader and the csv module find in it."""

import csv
from collections import Counter

from lma.data import prepare
from lma.data.avazu import FEATURES
from lma.data.synthetic import SyntheticLog
from lma.data.synthetic_avazu import write_synthetic_avazu


def test_columns_days_and_tokens(tmp_path):
    path = write_synthetic_avazu(tmp_path / "train.csv", rows=2400, scale=1 / 4096, seed=5)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "click", *FEATURES]
    # Ten days of 24 hours, ten rows each, in order.
    hours = [row["hour"] for row in rows]
    assert hours == sorted(hours)
    assert set(Counter(hours).values()) == {10}
    assert (hours[0], hours[-1]) == ("14102100", "14103023")
    # The labels and the users are the synthetic log's.
    log = SyntheticLog(scale=1 / 4096, seed=5, semantic_strength=0.8)
    ((_, frame),) = log.frames(2400)
    assert [int(row["click"]) for row in rows] == frame["label"].to_list()
    assert [row["device_ip"] for row in rows] == frame["C3"].fill_null("00000000").to_list()
    dataset = prepare("avazu", path, tmp_path / "d")
    assert [dataset.num_rows(s) for s in ("train", "validation", "test")] == [2160, 120, 120]
