"""CSV, TSV, JSON lines and Parquet with a TOML schema, against the csv and json modules."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import math

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from log_files import random_split_by_hand, rank_by_hand

from lma.data import TableSchema, prepare, read_raw
from lma.errors import DataError

SCHEMA = """
name = "shop"
label = "click"
dense = ["age", {name = "delta", transform = "asinh"}]
one_hot = ["user", "city"]
multi_hot = [{name = "tags", separator = "|"}]
weight = "importance"
"""


def make_rows(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "click": int(rng.integers(2)),
            "age": None if n % 7 == 0 else float(rng.integers(0, 99)),
            "user": f"u{rng.zipf(1.5) % 40}",
            "other": "x,y",
            "city": ["Rome", "Žďár", "", 'so "called"', "a\nb"][rng.integers(5)],
            "delta": round(float(rng.normal()), 3),
            "tags": [f"t{t}" for t in rng.integers(0, 9, rng.integers(0, 4))],
            "importance": float(rng.integers(1, 5)),
        }
        for n in range(count)
    ]


def write(path, rows):
    """The rows in the form that the file's suffixes say."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".csv", ".tsv")):
        target = path.with_name("plain")
        with target.open("w", newline="") as file:
            quoting = csv.QUOTE_MINIMAL if name.endswith(".csv") else csv.QUOTE_NONE
            separator = "," if name.endswith(".csv") else "\t"
            writer = csv.writer(file, delimiter=separator, quoting=quoting, quotechar='"')
            writer.writerow(rows[0])
            for row in rows:
                cells = {**row, "tags": "|".join(row["tags"])}
                writer.writerow("" if v is None else v for v in cells.values())
        data = target.read_bytes()
    elif name.endswith(".jsonl"):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        pl.DataFrame(rows).write_parquet(path)
        return path
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)
    return path


def without_quotes(rows):
    plain = {'so "called"': "called", "a\nb": "ab"}
    return [{**row, "city": plain.get(row["city"], row["city"])} for row in rows]


def check(dataset, rows, seed=0):
    split = random_split_by_hand(len(rows), seed)
    train = [row for row, part in zip(rows, split, strict=True) if part == "train"]
    ranks = {n: rank_by_hand([row[n] for row in train]) for n in ("user", "city")}
    ranks["tags"] = rank_by_hand([tag for row in train for tag in row["tags"]])
    for part in ("train", "validation", "test"):
        wanted = [row for row, name in zip(rows, split, strict=True) if name == part]
        (batch,) = dataset.batches(part, len(wanted))
        assert batch.labels.tolist() == [row["click"] for row in wanted]
        assert batch.weights.tolist() == [row["importance"] for row in wanted]
        bags = [[row[n]] for n in ("user", "city") for row in wanted]
        bags += [row["tags"] for row in wanted]
        names = [n for n in ("user", "city", "tags") for _ in wanted]
        ids = [
            ranks[n].get(v, len(ranks[n])) for n, bag in zip(names, bags, strict=True) for v in bag
        ]
        assert batch.values.tolist() == ids
        assert batch.offsets.tolist() == np.cumsum([0, *map(len, bags)]).tolist()
        dense = [
            [
                math.log1p(row["age"] or 0),
                math.asinh(row["delta"]),
                float(row["age"] is None),
                0.0,
            ]
            for row in wanted
        ]
        torch.testing.assert_close(batch.dense, torch.tensor(dense))


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "schema.toml"
    path.write_text(SCHEMA)
    return path


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.csv.gz", "a.csv.zst", "a.tsv", "a.tsv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"],
)
def test_every_form_equals_an_independent_reading(schema, tmp_path, name):
    rows = make_rows()
    if ".tsv" in name:
        rows = without_quotes(rows)
    dataset = prepare("table", write(tmp_path / name, rows), tmp_path / "d", schema=schema)
    check(dataset, rows)
    assert dataset.schema.name == "shop"
    assert dataset.schema.weighted


def test_fast_and_slow_reading_agree(schema, tmp_path):
    rows = without_quotes(make_rows())
    fast = prepare("table", write(tmp_path / "a.csv", rows), tmp_path / "x", schema=schema)
    lines = (tmp_path / "a.csv").read_text().splitlines()
    # A quoted value sends the whole block to the csv module.
    lines[-1] = ",".join(f'"{value}"' for value in next(csv.reader([lines[-1]])))
    (tmp_path / "a.csv").write_text("\n".join(lines))
    slow = prepare("table", tmp_path / "a.csv", tmp_path / "y", schema=schema)
    assert fast.meta["splits"] == slow.meta["splits"]
    assert fast.meta["encoder"] == slow.meta["encoder"]


def test_small_blocks_and_several_files(schema, tmp_path, monkeypatch):
    rows = make_rows(900)
    paths = [write(tmp_path / f"{n}.csv", rows[300 * n :][:300]) for n in range(3)]
    monkeypatch.setattr("lma.data.text_blocks.BLOCK_BYTES", 999)
    check(prepare("table", paths, tmp_path / "d", schema=schema, seed=2), rows, seed=2)


def test_read_raw_gives_the_dataset_s_batches(schema, tmp_path):
    rows = make_rows()
    path = write(tmp_path / "a.csv", rows)
    dataset = prepare("table", path, tmp_path / "d", schema=schema)
    frame = pl.concat(read_raw("table", path, schema=schema))
    part = pl.Series(np.array(random_split_by_hand(len(rows), 0)) == "test")
    batch, (wanted,) = dataset.encoder.encode(frame.filter(part)), dataset.batches("test", 1000)
    assert torch.equal(batch.values, wanted.values)
    assert torch.equal(batch.dense, wanted.dense)
    assert torch.equal(batch.weights, wanted.weights)


def test_read_raw_without_a_label_column(schema, tmp_path):
    rows = [{k: v for k, v in row.items() if k != "click"} for row in make_rows(20)]
    (frame,) = read_raw("table", write(tmp_path / "a.csv", rows), schema=schema)
    assert "label" not in frame.columns
    assert len(frame) == 20


@pytest.mark.parametrize(
    ("at", "form"),
    [
        (lambda t: t.isoformat(sep=" "), None),
        (lambda t: t.strftime("%d.%m.%Y %H:%M:%S"), "%d.%m.%Y %H:%M:%S"),
        (lambda t: t.timestamp(), "epoch"),
        (lambda t: int(t.timestamp() * 1000), "epoch_ms"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_split_by_a_time_column(tmp_path, at, form, name):
    # Rows in no order, the last day has 10 of them: 5 validate, 5 test.
    start = datetime.datetime(2024, 2, 27, tzinfo=datetime.timezone.utc).replace(tzinfo=None)
    utc = datetime.timezone.utc
    moments = [start + datetime.timedelta(hours=3 * n) for n in range(26)]
    order = np.random.default_rng(0).permutation(26).tolist()
    rows = [
        {
            "click": n % 2,
            "user": str(n),
            "at": at(moments[n].replace(tzinfo=utc) if form and "epoch" in form else moments[n]),
        }
        for n in order
    ]
    path = tmp_path / name
    if name == "a.csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif name == "a.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pl.DataFrame(rows).write_parquet(path)
    time = {"column": "at", **({"format": form} if form else {})}
    schema = TableSchema.from_dict({"label": "click", "one_hot": ["user"], "time": time})
    dataset = prepare("table", path, tmp_path / "d", schema=schema, ids="hashed")
    assert dataset.meta["split"]["kind"] == "time"
    from lma.hashing import hash_strings

    # 26 rows at three hours: the last day, the fourth, holds rows 24 and 25.
    for split, wanted in (("validation", ["24"]), ("test", ["25"])):
        (batch,) = dataset.batches(split, 100)
        assert batch.values[:, 0].tolist() == hash_strings(wanted).tolist()
    assert dataset.num_rows("train") == 24


def test_temporal_parquet_columns(tmp_path):
    days = [datetime.date(2024, 1, 1 + n // 4) for n in range(12)]
    frame = pl.DataFrame({"click": [0, 1] * 6, "user": range(12), "at": days})
    frame.write_parquet(tmp_path / "a.parquet")
    schema = TableSchema.from_dict({"label": "click", "one_hot": ["user"], "time": "at"})
    dataset = prepare("table", tmp_path / "a.parquet", tmp_path / "d", schema=schema)
    # All of the last day at one moment cannot be halved: it validates.
    assert [dataset.num_rows(s) for s in ("train", "validation", "test")] == [8, 4, 0]


def test_one_day_cannot_be_split_by_time(tmp_path):
    (tmp_path / "a.csv").write_text("click,user,at\n1,a,5\n0,b,6\n")
    schema = TableSchema.from_dict(
        {"label": "click", "one_hot": ["user"], "time": {"column": "at", "format": "epoch"}}
    )
    with pytest.raises(DataError, match="more than one day"):
        prepare("table", tmp_path / "a.csv", tmp_path / "d", schema=schema)


def test_ratings_above_a_threshold(tmp_path):
    (tmp_path / "a.csv").write_text("user,stars\n" + "".join(f"u,{n % 5 + 1}\n" for n in range(50)))
    schema = TableSchema.from_dict(
        {"label": {"column": "stars", "at_least": 4}, "one_hot": ["user"]}
    )
    dataset = prepare("table", tmp_path / "a.csv", tmp_path / "d", schema=schema)
    assert dataset.meta["label_rate"] == pytest.approx(0.4)


def test_columns_without_a_header(tmp_path):
    (tmp_path / "a.txt").write_text("1;a\n0;b\n" * 20)
    schema = TableSchema.from_dict(
        {
            **{"label": "click", "one_hot": ["user"], "format": "csv"},
            **{"separator": ";", "columns": ["click", "user"]},
        }
    )
    assert prepare("table", tmp_path / "a.txt", tmp_path / "d", schema=schema).meta["rows"] == 40


def test_integers_and_floats_of_whole_numbers_are_the_same_tokens(tmp_path):
    pl.DataFrame({"click": [0, 1] * 20, "n": [7.0, None] * 20}).write_parquet(
        tmp_path / "a.parquet"
    )
    schema = TableSchema.from_dict({"label": "click", "one_hot": ["n"]})
    dataset = prepare("table", tmp_path / "a.parquet", tmp_path / "d", schema=schema)
    assert set(dataset.titles("n")) == {"7", "", "<unseen>"}


HEADER = "click,age,user,other,city,delta,tags,importance\n"
GOOD = "1,2,u,x,Rome,0.5,a|b,1\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,u,x,Rome,0.5,a\n", "line 3: expected 8 columns, found 7"),
        ("1,2,u,x,Rome,0.5,a,1,1\n", "line 3: expected 8 columns, found 9"),
        ("\n", "line 3: expected 8 columns, found 0"),
        ('1,2,"u"v,x,Rome,0.5,a,1\n', "line 3: cannot be read as a row"),
        ("2,2,u,x,Rome,0.5,a,1\n", r"line 3, column 1 \(click\): the label must be 0 or 1: '2'"),
        ("nan,2,u,x,Rome,0.5,a,1\n", r"line 3, column 1 \(click\): the label"),
        (",2,u,x,Rome,0.5,a,1\n", r"line 3, column 1 \(click\): the label"),
        ("1,two,u,x,Rome,0.5,a,1\n", r"line 3, column \d \(age\): expected a finite.*'two'"),
        ("1,nan,u,x,Rome,0.5,a,1\n", r"\(age\): expected a finite number or nothing: 'nan'"),
        ("1,-inf,u,x,Rome,0.5,a,1\n", r"\(age\): expected a finite number or nothing: '-inf'"),
        ("1,1e999,u,x,Rome,0.5,a,1\n", r"\(age\): expected a finite number or nothing"),
        ("1,2,u,x,Rome,0.5,a,-1\n", r"\(importance\): expected a finite weight >= 0: '-1'"),
        ("1,2,u,x,R\xffme,0.5,a,1\n", "line 3: not valid UTF-8"),
    ],
)
def test_bad_csv_lines(schema, tmp_path, line, message):
    path = tmp_path / "bad.csv"
    path.write_bytes((HEADER + GOOD + line + GOOD * 40).encode("latin-1"))
    with pytest.raises(
        DataError, match=rf"bad\.csv, .*{message}" if "line" in message else message
    ):
        prepare("table", path, tmp_path / "d", schema=schema)
    dataset = prepare("table", path, tmp_path / "d", schema=schema, on_error="skip", max_bad=1)
    assert dataset.meta["rows"] == 41
    (reject,) = (tmp_path / "d.rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["line"] == 3
    split = random_split_by_hand(42, 0)
    del split[1]
    assert dataset.num_rows("train") == split.count("train")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"click": ' + "9" * 5000 + "}", "line 2: not JSON"),
        ('{"click": "1"}', r"line 2 \(click\): expected a number"),
        ('{"click": null}', "the label must be 0 or 1"),
        ('{"click": 1, "importance": 1, "age": NaN}', r"\(age\): expected a finite number"),
        ('{"click": 1, "importance": 1, "user": {}}', r"\(user\): expected a string or an integer"),
        ('{"click": 1, "importance": 1, "tags": "a"}', r"\(tags\): expected a list"),
        ('{"click": 1, "importance": 1, "user": "\\ud800"}', r"\(user\)"),
    ],
)
def test_bad_json_lines(schema, tmp_path, record, message):
    good = '{"click": 0, "importance": 2.5, "user": 3, "age": null}\n'
    last = '{"click": 0, "importance": 1, "delta": 1, "city": "Rome", "tags": []}\n'
    path = tmp_path / "bad.jsonl"
    path.write_text(good + record + "\n" + good * 40 + last)
    with pytest.raises(DataError, match=message):
        prepare("table", path, tmp_path / "d", schema=schema)
    dataset = prepare("table", path, tmp_path / "d", schema=schema, on_error="skip", max_bad=1)
    assert dataset.meta["rows"] == 42


def test_bad_parquet_values_and_files(schema, tmp_path):
    rows = make_rows(50)
    rows[4]["delta"] = math.inf
    path = write(tmp_path / "a.parquet", rows)
    with pytest.raises(DataError, match=r"a\.parquet, line 5, .*\(delta\): expected a finite"):
        prepare("table", path, tmp_path / "d", schema=schema)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        prepare("table", path, tmp_path / "d", schema=schema)
    path.write_bytes(b"PAR1" + b"\x00" * 500 + data[504:])
    with pytest.raises(DataError):
        prepare("table", path, tmp_path / "d", schema=schema)


def test_header_faults(schema, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER.replace("city", "cities") + GOOD)
    with pytest.raises(DataError, match="column 'city' is missing; the nearest is 'cities'"):
        prepare("table", path, tmp_path / "d", schema=schema)
    path.write_text(HEADER.replace("other", "user") + GOOD)
    with pytest.raises(DataError, match="two columns are named 'user'"):
        prepare("table", path, tmp_path / "d", schema=schema)
    path.write_text(HEADER)
    with pytest.raises(DataError, match="no training rows"):
        prepare("table", path, tmp_path / "d", schema=schema)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels = 'x'", "unknown key 'labels'; the nearest is 'label'"),
        ("label = ", "cannot be read"),
        ("label = 'x'", "at least one column"),
        ("label = 'x'\none_hot = 'u'", "one_hot must be a list"),
        ("label = 'x'\none_hot = ['u', 'u']", "'u' is named twice"),
        ("label = 'x'\none_hot = ['u', 'label']", "the name is taken"),
        ("label = 'x'\none_hot = ['u']\nformat = 'xml'", "format must be"),
        ("label = 'x'\none_hot = [{nam = 'u'}]", "one_hot: expected a column's name"),
        ("label = 'x'\none_hot = [{name = 'u', seperator = 'x'}]", "unknown one_hot key"),
        ("label = 'x'\none_hot = ['u']\ndense = [{name = 'd', transform = 'log'}]", "transform"),
        ("label = 'x'\none_hot = ['u']\nseparator = ',,'", "separator must be one byte"),
        ("one_hot = ['u']", "names no label"),
    ],
)
def test_schema_faults(tmp_path, text, message):
    (tmp_path / "s.toml").write_text(text)
    (tmp_path / "a.csv").write_text("x,u\n1,2\n")
    with pytest.raises(DataError, match=message):
        prepare("table", tmp_path / "a.csv", tmp_path / "d", schema=tmp_path / "s.toml")


def test_a_file_of_unknown_kind(schema, tmp_path):
    (tmp_path / "a.dat").write_text("x")
    with pytest.raises(DataError, match="cannot tell its format"):
        prepare("table", tmp_path / "a.dat", tmp_path / "d", schema=schema)
    with pytest.raises(ValueError, match="needs schema"):
        prepare("table", tmp_path / "a.dat", tmp_path / "d")


def test_a_stray_quote_loses_only_its_own_row(schema, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + GOOD * 3 + '1,2,u,x,5" disk,0.5,a,1\n' + GOOD * 40)
    assert prepare("table", path, tmp_path / "d", schema=schema).meta["rows"] == 44
    frame = pl.concat(read_raw("table", path, schema=schema))
    assert frame["city"].to_list() == ["Rome"] * 3 + ['5" disk'] + ["Rome"] * 40


def test_no_folder_permission(schema, tmp_path):
    # Root may write anywhere; a file in the place of a folder is refused to everyone.
    (tmp_path / "file").write_text("")
    path = write(tmp_path / "a.csv", make_rows(20))
    with pytest.raises(DataError, match="cannot be made"):
        prepare("table", path, tmp_path / "file" / "d", schema=schema)
