"""Sampled negatives: frappe and interactions."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from lma.data import prepare, read_raw
from lma.data.negatives import sample_negatives
from lma.errors import DataError


def everything(dataset):
    """(split, label, {feature: raw value}) of all rows of a one-hot dataset, by its titles."""
    names = [feature.name for feature in dataset.schema.features]
    titles = [dataset.titles(name) for name in names]
    for split in ("train", "validation", "test"):
        for batch in dataset.batches(split, 1 << 16):
            for label, ids in zip(batch.labels.tolist(), batch.values.tolist(), strict=True):
                row = {n: t[i] for n, t, i in zip(names, titles, ids, strict=True)}
                yield split, label, row


@pytest.fixture
def positives():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user": rng.integers(0, 25, 500),
            "item": np.minimum(rng.zipf(1.3, 500), 60),
            "place": rng.integers(0, 3, 500),
        }
    )


@pytest.mark.parametrize("by_popularity", [True, False])
def test_negatives_are_others_and_distinct(positives, by_popularity):
    users, items = positives.user.to_numpy(), positives.item.to_numpy() - 1
    drawn = sample_negatives(users, items, 60, 3, by_popularity=by_popularity, seed=1)
    again = sample_negatives(users, items, 60, 3, by_popularity=by_popularity, seed=1)
    other = sample_negatives(users, items, 60, 3, by_popularity=by_popularity, seed=2)
    assert (drawn == again).all()
    assert (drawn != other).any()
    own = defaultdict(set)
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        own[user].add(item)
    for user, row in zip(users.tolist(), drawn.tolist(), strict=True):
        assert len(set(row)) == 3
        assert not own[user] & set(row)


def test_negatives_match_popularity():
    # Many users with one positive each: nothing is excluded but the positive itself.
    rng = np.random.default_rng(0)
    users = np.arange(20_000)
    items = rng.choice(50, 20_000, p=np.arange(1, 51) / 1275)
    drawn = sample_negatives(users, items, 50, 1, by_popularity=True, seed=0)[:, 0]
    share = Counter(items.tolist())
    # Given the positive i, item j is drawn with p_j / (1 - p_i).
    p = np.array([share[j] / 20_000 for j in range(50)])
    expected = p * ((p / (1 - p)).sum() - p / (1 - p))
    seen = np.bincount(drawn, minlength=50) / 20_000
    assert (np.abs(seen - expected) < 5 * np.sqrt(expected / 20_000)).all()


def test_a_user_with_nearly_everything():
    users, items = np.zeros(9, np.int64), np.arange(9)
    users, items = np.append(users, 1), np.append(items, 9)
    drawn = sample_negatives(users, items, 11, 2, by_popularity=False, seed=0)
    assert all(set(row) == {9, 10} for row in drawn[:9].tolist())
    with pytest.raises(DataError, match="9 of 11 items"):
        sample_negatives(users, items, 11, 3, by_popularity=False, seed=0)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_interactions(positives, tmp_path, suffix):
    path = tmp_path / f"log.{suffix}"
    frame = pl.from_pandas(positives)
    frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    options = {"negatives": 3, "context": "place", "seed": 4}
    dataset = prepare("interactions", path, tmp_path / "d", **options)
    assert dataset.meta["rows"] == 2000
    assert dataset.meta["label_rate"] == 0.25
    known = {tuple(map(str, row)) for row in positives[["user", "item"]].to_numpy().tolist()}
    rows = list(everything(dataset))
    for start in range(0, len(rows), 4):
        group = rows[start : start + 4]
        assert [label for _, label, _ in group] == [1, 0, 0, 0]
        # A positive and its negatives share split, user and context.
        assert len({split for split, _, _ in group}) == 1
        assert len({row["place"] for _, _, row in group}) == 1
        assert len({row["user"] for _, _, row in group}) == 1
    seen = [r for s, label, r in rows if s == "train" and label]
    assert all((r["user"], r["item"]) in known for r in seen)
    wrong = [r for s, label, r in rows if s == "train" and not label]
    assert not any((r["user"], r["item"]) in known for r in wrong)
    again = prepare("interactions", path, tmp_path / "e", **options)
    assert again.meta["splits"] == dataset.meta["splits"]


def test_rows_to_predict_get_no_negatives(positives, tmp_path):
    pl.from_pandas(positives).write_csv(tmp_path / "log.csv")
    frame = pl.concat(read_raw("interactions", tmp_path / "log.csv"))
    assert frame["item"].to_list() == positives.item.astype(str).tolist()
    assert frame.columns == ["user", "item"]


def test_interactions_faults(positives, tmp_path):
    pl.from_pandas(positives).write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="column 'items' is missing; the nearest is 'item'"):
        prepare("interactions", tmp_path / "log.csv", tmp_path / "d", item="items")
    with pytest.raises(ValueError, match="negatives must be"):
        prepare("interactions", tmp_path / "log.csv", tmp_path / "d", negatives=-1)
    with pytest.raises(ValueError, match="sampling must be"):
        prepare("interactions", tmp_path / "log.csv", tmp_path / "d", sampling="all")
    with pytest.raises(ValueError, match="no time column"):
        prepare("interactions", tmp_path / "log.csv", tmp_path / "d", split="time")
    (tmp_path / "log.csv").write_text("user,item\n")
    with pytest.raises(DataError, match="no usable rows"):
        prepare("interactions", tmp_path / "log.csv", tmp_path / "d")


def make_frappe(folder, count=400):
    rng = np.random.default_rng(0)
    items = rng.integers(0, 40, count)
    frame = pl.DataFrame(
        {
            "user": rng.integers(0, 30, count),
            "item": items,
            "cnt": rng.integers(1, 99, count),
            "daytime": rng.choice(["morning", "night"], count),
            "weekday": rng.choice(["monday", "friday"], count),
            "isweekend": rng.choice(["workday", "weekend"], count),
            "homework": rng.choice(["home", "unknown"], count),
            "cost": np.where(items % 3 == 0, "paid", "free"),
            "weather": rng.choice(["sunny", "rainy"], count),
            "country": rng.choice(["Spain", "Norway"], count),
            "city": rng.integers(0, 9, count),
        }
    )
    frame.write_parquet(folder / "frappe.parquet")
    return frame


def check_frappe(dataset, frame):
    rows = frame.with_columns(pl.all().cast(pl.String)).to_dicts()
    cost = {row["item"]: row["cost"] for row in rows}
    own = defaultdict(set)
    for row in rows:
        own[row["user"]].add(row["item"])
    context = [f.name for f in dataset.schema.features if f.name not in ("item", "cost")]
    found = [(label, row) for split, label, row in everything(dataset) if split == "train"]
    for start in range(0, len(found), 3):
        group = found[start : start + 3]
        assert [label for label, _ in group] == [1, 0, 0]
        assert len({tuple(row[n] for n in context) for _, row in group}) == 1
        for label, row in group:
            assert row["cost"] == cost[row["item"]]
            assert (row["item"] in own[row["user"]]) == bool(label)
    return len(found)


def test_frappe(tmp_path):
    frame = make_frappe(tmp_path)
    dataset = prepare("frappe", tmp_path, tmp_path / "d")
    assert dataset.meta["rows"] == 1200
    assert check_frappe(dataset, frame) == dataset.num_rows("train")
    with pytest.raises(DataError, match=r"frappe\.parquet: no such file"):
        prepare("frappe", tmp_path / "d", tmp_path / "e")


def test_real_frappe(real_logs, tmp_path):
    dataset = prepare("frappe", real_logs / "frappe", tmp_path / "d")
    assert dataset.meta["rows"] == 3 * 96_203
    assert [dataset.num_rows(s) for s in ("train", "validation", "test")] == [
        230_601,
        28_731,
        29_277,
    ]
    sizes = {f.name: f.num_embeddings - 1 for f in dataset.schema.features}
    assert sizes == {
        **{"user": 941, "item": 4082, "daytime": 7, "weekday": 7, "isweekend": 2, "homework": 3},
        **{"weather": 9, "country": 79, "city": 232, "cost": 2},
    }
    frame = pl.read_parquet(real_logs / "frappe" / "frappe.parquet")
    assert check_frappe(dataset, frame) == 230_601


def test_real_amazon_book(real_logs, tmp_path):
    path = real_logs / "amazon-book" / "interactions.parquet"
    dataset = prepare("interactions", path, tmp_path / "d", name="amazon-book")
    assert dataset.meta["rows"] == 3 * 603_378
    assert {f.name: f.num_embeddings - 1 for f in dataset.schema.features} == {
        "user": 52_616,
        "item": 82_067,
    }
    frame = pl.read_parquet(path)
    known = set((frame["user"] * 100_000 + frame["item"]).to_list())
    titles = {n: np.array([int(t) for t in dataset.titles(n)[:-1]]) for n in ("user", "item")}
    for batch in dataset.batches("train", 1 << 17):
        users, items = (titles[n][batch.values[:, j]] for j, n in enumerate(("user", "item")))
        positive = torch.tensor([pair in known for pair in (users * 100_000 + items).tolist()])
        assert torch.equal(positive, batch.labels.bool())
