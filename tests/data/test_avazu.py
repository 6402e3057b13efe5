"""Avazu's CSV against the csv module."""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest
from log_files import rank_by_hand

from lma.data import prepare, read_raw
from lma.errors import DataError

HEX = ["site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"]
HEX += ["device_id", "device_ip", "device_model"]
NUMBERS = ["device_type", "device_conn_type", *(f"C{n}" for n in range(14, 22))]
HEADER = ["id", "click", "hour", "C1", "banner_pos", *HEX, *NUMBERS]
FEATURES = HEADER[2:]


def make_rows():
    rng = np.random.default_rng(0)
    rows = []
    for n in range(240):
        row = {
            "id": str(10**19 + n),
            "click": str(rng.integers(2)),
            "hour": f"1410{21 + n // 48:02d}",
        }
        row["hour"] += f"{n % 48 // 2:02d}"
        row |= {"C1": "1005", "banner_pos": str(rng.integers(3))}
        row |= {name: f"{rng.zipf(1.3) % 2**32:08x}" for name in HEX}
        row |= {name: str(rng.integers(-1, 30)) for name in NUMBERS}
        rows.append(row)
    return rows


@pytest.fixture
def log(tmp_path):
    return write(tmp_path / "train.gz", make_rows())


def write(path, rows):
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("hour", ["of_day", "raw"])
def test_ids_and_split_equal_an_independent_reading(log, tmp_path, hour):
    dataset = prepare("avazu", log, tmp_path / "d", hour=hour)
    rows = make_rows()
    if hour == "of_day":
        rows = [{**row, "hour": row["hour"][6:]} for row in rows]
    # Four days train; of the last day's 48 rows, two per hour, twelve hours validate.
    parts = {"train": rows[:192], "validation": rows[192:216], "test": rows[216:]}
    ranks = {name: rank_by_hand([row[name] for row in parts["train"]]) for name in FEATURES}
    assert [feature.name for feature in dataset.schema.features] == FEATURES
    for split, wanted in parts.items():
        (batch,) = dataset.batches(split, 1000)
        ids = [[ranks[n].get(row[n], len(ranks[n])) for n in FEATURES] for row in wanted]
        assert batch.values.tolist() == ids
        assert batch.labels.tolist() == [float(row["click"]) for row in wanted]
        assert batch.dense.shape == (len(wanted), 0)


def test_prediction_without_clicks(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "click"} for row in make_rows()[:7]]
    (frame,) = read_raw("avazu", write(tmp_path / "test.gz", rows))
    assert frame.columns == FEATURES
    assert len(frame) == 7


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("site_id", "1fbe01fg", r"column 6 \(site_id\): expected 8 hexadecimal digits: '1fbe01fg'"),
        ("C20", "x", r"\(C20\): expected an integer: 'x'"),
        ("hour", "14102199", r"\(hour\): expected a time"),
        ("click", "", r"\(click\): the label must be 0 or 1"),
    ],
)
def test_bad_values(tmp_path, column, value, message):
    rows = make_rows()
    rows[9][column] = value
    path = write(tmp_path / "train.gz", rows)
    with pytest.raises(DataError, match=rf"train\.gz, line 11, .*{message}"):
        prepare("avazu", path, tmp_path / "d")
    assert prepare("avazu", path, tmp_path / "d", on_error="skip", max_bad=1).meta["rows"] == 239


def test_missing_column(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "C17"} for row in make_rows()]
    with pytest.raises(DataError, match="column 'C17' is missing"):
        prepare("avazu", write(tmp_path / "train.gz", rows), tmp_path / "d")


def test_bad_option(log, tmp_path):
    with pytest.raises(ValueError, match="hour must be"):
        prepare("avazu", log, tmp_path / "d", hour="yes")
