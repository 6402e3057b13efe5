"""MovieLens-1M against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from log_files import random_split_by_hand, rank_by_hand

from lma.data import prepare, read_raw
from lma.data.splits import RandomSplit
from lma.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small folder of the same shape, with a missing user and a film without genres."""
    path = tmp_path_factory.mktemp("ml")
    rng = np.random.default_rng(0)
    pl.DataFrame(
        {
            "user": rng.integers(1, 31, 400),
            "movie": rng.integers(1, 21, 400),
            "rating": rng.integers(1, 6, 400).astype(np.int8),
        }
    ).write_parquet(path / "ratings.parquet")
    pl.DataFrame(
        {
            "user": range(1, 30),
            "gender": ["F", "M", "M"] * 9 + ["F", "F"],
            "age": [1, 18, 25] * 9 + [1, 56],
            "occupation": list(range(29)),
            "zip": [f"{n:05d}" for n in range(29)],
        }
    ).write_parquet(path / "users.parquet")
    pl.DataFrame(
        {
            "movie": range(1, 21),
            "title": [f"Film (a) {n} ({1980 + n % 3})" for n in range(20)],
            "genres": ["Drama", "Comedy|Drama", ""] * 6 + ["War", "Drama|War|Comedy"],
        }
    ).write_parquet(path / "movies.parquet")
    return path


def independent_rows(folder):
    ratings, users, movies = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("ratings", "users", "movies")
    )
    users = {row["user"]: row for row in users.to_dict("records")}
    movies = {row["movie"]: row for row in movies.to_dict("records")}
    rows = []
    for rating in ratings.to_dict("records"):
        user, movie = users.get(rating["user"], {}), movies.get(rating["movie"], {})
        row = {name: str(user.get(name, "")) for name in ("gender", "age", "occupation", "zip")}
        row |= {"user": str(rating["user"]), "movie": str(rating["movie"])}
        row["year"] = movie["title"][-5:-1]
        row["genres"] = [genre for genre in movie["genres"].split("|") if genre]
        row["label"] = float(rating["rating"] >= 4)
        rows.append(row)
    return rows


def check(folder, dataset, seed):
    rows = independent_rows(folder)
    split = random_split_by_hand(len(rows), seed)
    train = [row for row, part in zip(rows, split, strict=True) if part == "train"]
    names = [feature.name for feature in dataset.schema.features]
    assert names == ["user", "movie", "gender", "age", "occupation", "zip", "year", "genres"]
    ranks = {
        n: rank_by_hand([v for r in train for v in (r[n] if n == "genres" else [r[n]])])
        for n in names
    }
    for part in ("train", "validation", "test"):
        wanted = [row for row, name in zip(rows, split, strict=True) if name == part]
        (batch,) = dataset.batches(part, len(wanted))
        values, lengths = [], []
        for n in names:
            bags = [row[n] if n == "genres" else [row[n]] for row in wanted]
            lengths += [len(bag) for bag in bags]
            values += [ranks[n].get(v, len(ranks[n])) for bag in bags for v in bag]
        assert batch.values.tolist() == values
        assert batch.offsets.tolist() == np.cumsum([0, *lengths]).tolist()
        assert batch.labels.tolist() == [row["label"] for row in wanted]
        assert batch.dense.shape == (len(wanted), 0)
    return ranks


def test_small_folder_equals_pandas(folder, tmp_path):
    dataset = prepare("movielens", folder, tmp_path / "d", seed=5)
    ranks = check(folder, dataset, 5)
    films = {str(n + 1): f"Film (a) {n} ({1980 + n % 3})" for n in range(20)}
    assert dataset.titles("movie") == [*(films[m] for m in ranks["movie"]), "<unseen>"]
    assert dataset.titles("genres")[-1] == "<unseen>"


@pytest.mark.slow
def test_movielens_1m(real_logs, tmp_path):
    folder = real_logs / "ml-1m"
    dataset = prepare("movielens", folder, tmp_path / "d")
    ratings = pd.read_parquet(folder / "ratings.parquet")
    users = pd.read_parquet(folder / "users.parquet")
    wanted = ratings.merge(users, on="user", how="left")
    parts = RandomSplit(0).assign(np.arange(len(wanted)))
    wanted["split"] = [("train", "validation", "test")[part] for part in parts]
    for part in ("train", "validation", "test"):
        rows = wanted[wanted.split == part]
        batches = list(dataset.batches(part, 1 << 17))
        assert torch.cat([b.labels for b in batches]).tolist() == (rows.rating >= 4).tolist()
        for number, name in ((0, "user"), (1, "movie"), (5, "zip")):
            ids = [b.values[number * len(b) : (number + 1) * len(b)] for b in batches]
            titles = dataset.encoder.dictionary(name).values.to_pylist()
            known = dict(enumerate(titles))
            shown = [known.get(i) for i in torch.cat(ids).tolist()]
            vocabulary = set(titles)
            raw = rows[name].astype(str).tolist()
            assert shown == [value if value in vocabulary else None for value in raw]
    assert dataset.meta["rows"] == 1_000_209
    sizes = {f.name: f.num_embeddings for f in dataset.schema.features}
    assert sizes == {
        **{"user": 6041, "movie": 3681, "gender": 3, "age": 8},
        **{"occupation": 22, "zip": 3440, "year": 82, "genres": 19},
    }
    assert dataset.meta["label_rate"] == pytest.approx(0.575160, abs=1e-6)


def test_read_raw_encodes_bags(folder, tmp_path):
    dataset = prepare("movielens", folder, tmp_path / "d", seed=5)
    (frame,) = read_raw("movielens", folder)
    split = np.array(random_split_by_hand(len(frame), 5))
    batch = dataset.encoder.encode(frame.filter(pl.Series(split == "test")))
    (wanted,) = dataset.batches("test", 10_000)
    assert torch.equal(batch.values, wanted.values)
    assert torch.equal(batch.offsets, wanted.offsets)


def test_missing_file_and_column(folder, tmp_path):
    with pytest.raises(DataError, match="expected one folder"):
        prepare("movielens", [folder, folder], tmp_path / "d")
    with pytest.raises(DataError, match=r"ratings\.parquet: no such file"):
        prepare("movielens", tmp_path, tmp_path / "d")
    for name in ("ratings", "users", "movies"):
        table = pl.read_parquet(folder / f"{name}.parquet")
        table.drop("zip", strict=False).write_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"users\.parquet: column 'zip' is missing"):
        prepare("movielens", tmp_path, tmp_path / "d")


def test_a_rating_out_of_range(folder, tmp_path):
    for name in ("users", "movies"):
        (tmp_path / f"{name}.parquet").write_bytes((folder / f"{name}.parquet").read_bytes())
    ratings = pl.read_parquet(folder / "ratings.parquet")
    ratings[7, "rating"] = 9
    ratings.write_parquet(tmp_path / "ratings.parquet")
    with pytest.raises(DataError, match=r"ratings\.parquet, line 8 \(rating\): .* 1 to 5: '9'"):
        prepare("movielens", tmp_path, tmp_path / "d")
    assert (
        prepare("movielens", tmp_path, tmp_path / "d", on_error="skip", max_bad=1).meta["rows"]
        == 399
    )


def test_no_split_by_time(folder, tmp_path):
    with pytest.raises(ValueError, match="no timestamps"):
        prepare("movielens", folder, tmp_path / "d", split="time")
