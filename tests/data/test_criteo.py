"""Criteo's TSV against a reading by the csv module."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch
from log_files import (
    CATEGORIES,
    INTEGERS,
    criteo_line,
    dense_by_hand,
    random_split_by_hand,
    rank_by_hand,
    read_with_csv,
    write_lines,
)

from lma.data import Dataset, prepare, read_raw
from lma.data import text_blocks as blocks_module
from lma.errors import DataError
from lma.hashing import hash_string, to_signed

# The package offers the function of the same name in its place.
prepare_module = sys.modules["lma.data.prepare"]

GOOD = criteo_line("1", range(13), ["0123abcd"] * 26)


def all_rows(dataset, split):
    batches = list(dataset.batches(split, 1000))
    return (
        torch.cat([b.dense for b in batches]),
        torch.cat([b.values for b in batches]),
        torch.cat([b.labels for b in batches]),
    )


@pytest.mark.parametrize("min_count", [1, 3])
def test_dictionary_ids_equal_an_independent_reading(synthetic_log, tmp_path, min_count):
    rows = read_with_csv(synthetic_log)
    split = random_split_by_hand(len(rows), seed=7)
    dataset = prepare("criteo", synthetic_log, tmp_path / "d", seed=7, min_count=min_count)
    train = [row for row, part in zip(rows, split, strict=True) if part == "train"]
    ranks = {name: rank_by_hand([row[name] for row in train], min_count) for name in CATEGORIES}
    for name in ("train", "validation", "test"):
        wanted = [row for row, part in zip(rows, split, strict=True) if part == name]
        dense, values, labels = all_rows(dataset, name)
        assert dataset.num_rows(name) == len(wanted) == len(labels)
        ids = [[ranks[c].get(row[c], len(ranks[c])) for c in CATEGORIES] for row in wanted]
        torch.testing.assert_close(values, torch.tensor(ids))
        torch.testing.assert_close(labels, torch.tensor([float(row["label"]) for row in wanted]))
        by_hand = np.stack([dense_by_hand([row[i] for i in INTEGERS]) for row in wanted])
        torch.testing.assert_close(dense, torch.from_numpy(by_hand))
    for feature in dataset.schema.features:
        assert feature.num_embeddings == len(ranks[feature.name]) + 1
        assert dataset.titles(feature.name) == [*ranks[feature.name], "<unseen>"]
    assert dataset.num_tokens() == sum(map(len, ranks.values()))


def test_support_histogram_counts_training_tokens(synthetic_log, synthetic_dataset):
    rows = read_with_csv(synthetic_log)
    split = random_split_by_hand(len(rows), seed=3)
    values = [r["C10"] for r, part in zip(rows, split, strict=True) if part == "train"]
    _, counts = np.unique(values, return_counts=True)
    support, tokens = synthetic_dataset.support_histogram("C10")
    assert (np.diff(support) < 0).all()
    assert np.repeat(support, tokens).tolist() == sorted(counts.tolist(), reverse=True)


def test_hashed_ids_are_string_hashes(synthetic_log, tmp_path):
    rows = read_with_csv(synthetic_log)
    split = random_split_by_hand(len(rows), seed=0)
    dataset = prepare("criteo", synthetic_log, tmp_path / "d", ids="hashed")
    _, values, _ = all_rows(dataset, "test")
    wanted = [
        [to_signed(hash_string(row[c])) for c in CATEGORIES]
        for row, part in zip(rows, split, strict=True)
        if part == "test"
    ]
    assert values.tolist() == wanted
    assert {f.num_embeddings for f in dataset.schema.features} == {None}
    assert dataset.titles("C1") is None
    exact = prepare("criteo", synthetic_log, tmp_path / "e")
    assert dataset.num_tokens() == exact.num_tokens()
    got, want = (d.support_histogram("C3") for d in (dataset, exact))
    assert [a.tolist() for a in got] == [a.tolist() for a in want]


def test_gzip_gives_the_same_dataset(synthetic_log, tmp_path):
    packed = tmp_path / "log.tsv.gz"
    packed.write_bytes(gzip.compress(synthetic_log.read_bytes()))
    a, b = (prepare("criteo", p, tmp_path / p.suffix[1:]) for p in (synthetic_log, packed))
    assert a.meta["splits"] == b.meta["splits"]
    assert a.meta["encoder"] == b.meta["encoder"]


def test_small_blocks_give_the_same_dataset(synthetic_log, tmp_path, monkeypatch):
    a = prepare("criteo", synthetic_log, tmp_path / "a")
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 20_000)
    b = prepare("criteo", synthetic_log, tmp_path / "b")
    assert a.meta["splits"] == b.meta["splits"]
    assert a.meta["encoder"] == b.meta["encoder"]


def test_time_split_of_one_file(tmp_path):
    lines = [criteo_line(str(n % 2), [n] + [""] * 12) for n in range(70)]
    dataset = prepare("criteo", write_lines(tmp_path / "f", lines), tmp_path / "d", split="time")
    sizes = [dataset.num_rows(s) for s in ("train", "validation", "test")]
    assert sizes == [60, 5, 5]
    first = torch.expm1(next(dataset.batches("validation", 1)).dense[0, 0])
    assert round(first.item()) == 60


def test_day_files_of_a_folder_split_by_time(tmp_path):
    days = tmp_path / "days"
    days.mkdir()
    for day in (0, 2, 10):  # day_10 comes after day_2
        lines = [criteo_line("1", [1000 * day + n] + [""] * 12) for n in range(10)]
        write_lines(days / f"day_{day}.gz", lines, compressed=True)
    dataset = prepare("criteo", days, tmp_path / "d")
    assert [dataset.num_rows(s) for s in ("train", "validation", "test")] == [20, 5, 5]
    dense = next(dataset.batches("test", 5)).dense[:, 0]
    assert torch.expm1(dense).round().tolist() == [10005, 10006, 10007, 10008, 10009]


def test_max_rows_reads_only_the_beginning(synthetic_log, tmp_path):
    dataset = prepare("criteo", synthetic_log, tmp_path / "d", max_rows=100)
    assert dataset.meta["rows"] == 100
    assert dataset.num_rows("train") == random_split_by_hand(100, 0).count("train")


def test_windows_line_ends_and_a_last_line_without_end(tmp_path):
    plain = write_lines(tmp_path / "a", [GOOD] * 20)
    other = tmp_path / "b"
    other.write_bytes(b"\r\n".join([GOOD.encode()] * 20))
    a, b = prepare("criteo", plain, tmp_path / "x"), prepare("criteo", other, tmp_path / "y")
    assert a.meta["splits"] == b.meta["splits"]


def test_read_raw_and_encode_give_the_batches_of_the_dataset(synthetic_log, synthetic_dataset):
    frame = pl.concat(read_raw("criteo", synthetic_log))
    split = np.array(random_split_by_hand(len(frame), seed=3))
    batch = synthetic_dataset.encoder.encode(frame.filter(pl.Series(split == "test")))
    dense, values, labels = all_rows(synthetic_dataset, "test")
    assert torch.equal(batch.dense, dense)
    assert torch.equal(batch.values, values)
    assert torch.equal(batch.labels, labels)


def test_read_raw_without_labels(synthetic_log, synthetic_dataset, tmp_path):
    lines = [line.split("\t", 1)[1] for line in synthetic_log.read_text().splitlines()[:50]]
    (frame,) = read_raw("criteo", write_lines(tmp_path / "test.txt", lines))
    batch = synthetic_dataset.encoder.encode(frame)
    assert len(batch) == 50
    assert batch.labels.isnan().all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD + "\t", "line 3: expected 40 tab-separated columns, found 41"),
        (GOOD.rsplit("\t", 1)[0], "line 3: expected 40 tab-separated columns, found 39"),
        ("", "line 3: expected 40 tab-separated columns, found 1"),
        (GOOD.replace("0123abcd", "0123abcg", 1), r"line 3, column 15 \(C1\).*hexa.*'0123abcg'"),
        (GOOD.replace("0123abcd", "123abcd", 1), r"line 3, column 15 \(C1\).*'123abcd'"),
        (GOOD.replace("\t7\t", "\t7.5\t"), r"line 3, column 9 \(I8\): expected an integer.*'7.5'"),
        (GOOD.replace("\t7\t", "\tnan\t"), r"column 9 \(I8\): expected an integer.*'nan'"),
        (GOOD.replace("\t7\t", f"\t{2**63}\t"), r"column 9 \(I8\).*does not fit in 64 bits"),
        (GOOD.replace("\t7\t", f"\t{10**30}\t"), r"column 9 \(I8\): expected an integer"),
        ("2" + GOOD[1:], r"line 3, column 1 \(label\): the label must be 0 or 1: '2'"),
        (GOOD[1:], r"line 3, column 1 \(label\): the label must be 0 or 1"),
        ("nan" + GOOD[1:], r"line 3, column 1 \(label\): the label must be 0 or 1: 'nan'"),
        (GOOD.replace("0123abcd", "0123\xffab", 1), r"column 15 \(C1\).*hexa"),
    ],
)
def test_a_bad_line_is_named_or_skipped(tmp_path, line, message):
    lines = [GOOD] * 50
    lines[2] = line
    path = tmp_path / "bad.tsv"
    path.write_bytes(("\n".join(lines) + "\n").encode("latin-1"))
    with pytest.raises(DataError, match=rf"bad\.tsv, {message}" if "line" in message else message):
        prepare("criteo", path, tmp_path / "d")
    assert not (tmp_path / "d").exists()
    assert not (tmp_path / "d.partial").exists()

    dataset = prepare("criteo", path, tmp_path / "d", on_error="skip", max_bad=1)
    assert dataset.meta["rows"] == 49
    assert dataset.meta["bad_rows"] == 1
    (reject,) = (tmp_path / "d.rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["line"] == 3
    # The other rows keep their splits: the row number is that of the line.
    split = random_split_by_hand(50, 0)
    del split[2]
    assert dataset.num_rows("train") == split.count("train")


def test_too_many_bad_lines_fail_and_keep_the_rejects(tmp_path):
    path = write_lines(tmp_path / "log", [GOOD] * 997 + ["x"] * 3)
    with pytest.raises(DataError, match=r"3 of 1,000 rows are bad.*1 that max_bad.*d.rejects"):
        prepare("criteo", path, tmp_path / "d", on_error="skip")
    assert len((tmp_path / "d.rejects.jsonl").read_text().splitlines()) == 3
    assert prepare("criteo", path, tmp_path / "d", on_error="skip", max_bad="0.3%").meta["rows"]


def test_a_file_of_another_kind_is_given_up_early(tmp_path):
    path = write_lines(tmp_path / "log", ["hello"] * 20_000)
    with pytest.raises(DataError, match="rows are bad"):
        prepare("criteo", path, tmp_path / "d", on_error="skip", max_bad="90%")


def test_a_mostly_bad_file_is_read_whole_where_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 100_000)
    path = write_lines(tmp_path / "log", (["hello"] * 3 + [GOOD]) * 5000)
    dataset = prepare("criteo", path, tmp_path / "d", on_error="skip", max_bad="80%")
    assert dataset.meta["rows"] == 5000
    assert dataset.meta["bad_rows"] == 15_000


def test_reading_ahead_does_not_make_a_log_worse_than_it_is(tmp_path, monkeypatch):
    # Parsing runs ahead of sorting into shards: what is bad in rows to come must not be held
    # against the rows done so far.
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 100_000)
    add = prepare_module._Run._add

    def slowly(run, chunk, rows):
        time.sleep(0.02)
        add(run, chunk, rows)

    monkeypatch.setattr(prepare_module._Run, "_add", slowly)
    path = write_lines(tmp_path / "log", (["hello"] * 3 + [GOOD]) * 5000)
    dataset = prepare("criteo", path, tmp_path / "d", on_error="skip", max_bad="76%")
    assert (dataset.meta["rows"], dataset.meta["bad_rows"]) == (5000, 15_000)


def test_unusable_files(tmp_path):
    with pytest.raises(DataError, match=r"none\.tsv: no such file"):
        prepare("criteo", tmp_path / "none.tsv", tmp_path / "d")
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="empty: the file is empty"):
        prepare("criteo", tmp_path / "empty", tmp_path / "d")
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="the file is empty"):
        prepare("criteo", tmp_path / "empty.gz", tmp_path / "d")
    with pytest.raises(DataError, match="without Criteo's day_0"):
        prepare("criteo", tmp_path, tmp_path / "d")


def test_a_truncated_gzip_fails_even_when_skipping(synthetic_log, tmp_path):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(synthetic_log.read_bytes())[:-1000])
    with pytest.raises(DataError, match=r"cut\.gz, after line .*damaged or ends early"):
        prepare("criteo", path, tmp_path / "d", on_error="skip")
    assert not (tmp_path / "d").exists()


def test_an_old_dataset_stays_when_the_new_one_fails(synthetic_log, tmp_path):
    before = prepare("criteo", synthetic_log, tmp_path / "d").meta
    with pytest.raises(DataError):
        prepare("criteo", write_lines(tmp_path / "bad", ["x"]), tmp_path / "d")
    assert Dataset.open(tmp_path / "d").meta == before


def test_a_dataset_is_replaced_but_no_other_folder(synthetic_log, tmp_path):
    prepare("criteo", synthetic_log, tmp_path / "d")
    assert prepare("criteo", synthetic_log, tmp_path / "d", ids="hashed").meta["ids"] == "hashed"
    assert {p.name for p in tmp_path.iterdir()} == {"d"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="is no prepared dataset"):
        prepare("criteo", synthetic_log, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_progress_ends_with_everything(synthetic_log, tmp_path):
    seen = []
    prepare("criteo", synthetic_log, tmp_path / "d", progress=lambda *p: seen.append(p))
    size = synthetic_log.stat().st_size
    assert seen[-1] == (3000, size, size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": "hash"}, "ids must be"),
        ({"split": "day"}, "split must be"),
        ({"min_count": 0}, "min_count"),
        ({"max_rows": 0}, "max_rows"),
        ({"on_error": "warn"}, "on_error"),
        ({"max_bad": "many"}, "max_bad"),
        ({"max_bad": -1}, "max_bad"),
    ],
)
def test_bad_arguments(synthetic_log, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare("criteo", synthetic_log, tmp_path / "d", **arguments)


def test_unknown_format_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="the nearest is 'criteo'"):
        prepare("critio", "x", tmp_path / "d")


def test_the_dictionary_has_a_cap(synthetic_log, tmp_path):
    with pytest.raises(DataError, match="more than 100 distinct tokens"):
        prepare("criteo", synthetic_log, tmp_path / "d", max_tokens=100)


def test_a_killed_run_leaves_nothing_that_opens_and_the_next_one_is_clean(synthetic_log, tmp_path):
    done = prepare("criteo", synthetic_log, tmp_path / "d")
    shutil.move(tmp_path / "d", tmp_path / "d.partial")
    (tmp_path / "d.partial" / "meta.json").unlink()
    with pytest.raises(ValueError, match="no prepared dataset"):
        Dataset.open(tmp_path / "d")
    again = prepare("criteo", synthetic_log, tmp_path / "d")
    assert again.meta == done.meta
