"""Property-based tests of the text readers, and inputs that once broke them."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import tempfile
from pathlib import Path

import fuzzing
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lma.data import TableSchema, read_raw
from lma.errors import DataError

SEEDS = sorted(fuzzing.SEEDS.glob("*")) if fuzzing.SEEDS.exists() else []


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_inputs_that_once_broke_a_rule(path, tmp_path):
    kind, block_bytes, _ = path.name.split("@")
    fuzzing.run(kind, path.read_bytes(), tmp_path, int(block_bytes))


@pytest.mark.parametrize("kind", list(fuzzing.BASES))
def test_undamaged_logs_are_read_whole(kind, tmp_path):
    data = fuzzing.BASES[kind]
    assert fuzzing.run(kind, data, tmp_path) == "read"
    options = {"schema": fuzzing.TABLE} if kind.startswith("table") else {}
    path = tmp_path / (kind if "." in kind else "log.txt")
    rows = sum(len(f) for f in read_raw(kind.split(".")[0], path, **options))
    header = kind in ("avazu", "table.csv")
    assert rows == data.count(b"\n") - header


@pytest.mark.parametrize("seed", range(8))
def test_random_damage(seed, tmp_path):
    rng = np.random.default_rng(seed)
    for kind, data in fuzzing.BASES.items():
        fuzzing.run(kind, fuzzing.mutate(rng, data), tmp_path, int(rng.choice([64, 1 << 24])))


_field = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "-", "7", "007", "+1", "1.0", " 1", "9" * 19, "9" * 20]),
    st.sampled_from(["00000000", "deadBEEF", "0000000", "000000000", "0000000g", "-0000000", "é"]),
    st.integers(-(2**65), 2**65).map(str),
    st.integers(0, 2**32 - 1).map(lambda n: f"{n:08x}"),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), max_size=9),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_criteo_lines_with_any_fields(data):
    base = [line.split("\t") for line in fuzzing.BASES["criteo"].decode().splitlines()]
    for _ in range(data.draw(st.integers(0, 6))):
        row = base[data.draw(st.integers(0, len(base) - 1))]
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(_field)
    text = "".join("\t".join(row) + "\n" for row in base).encode()
    with tempfile.TemporaryDirectory() as folder:
        fuzzing.run("criteo", text, Path(folder), data.draw(st.sampled_from([64, 4096])))


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
            _text,
        ),
        min_size=1,
        max_size=20,
    ),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    block_bytes=st.sampled_from([64, 4096]),
)
def test_csv_of_any_values_survives(rows, separator, quoting, block_bytes):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator="\n")
    writer.writerow(["y", "x", "u"])
    writer.writerows(("" if value is None else value for value in row) for row in rows)
    schema = TableSchema.from_dict(
        {**{"label": "y", "dense": ["x"], "one_hot": ["u"]}, "separator": separator}
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("lma.data.text_blocks.BLOCK_BYTES", block_bytes)
        path = Path(folder) / "a.csv"
        path.write_bytes(text.getvalue().encode())
        frame = pl.concat(read_raw("table", path, schema=schema))
    assert frame["label"].to_list() == [row[0] for row in rows]
    assert frame["u"].to_list() == [row[2] for row in rows]
    for found, (_, wanted, _) in zip(frame["x"].to_list(), rows, strict=True):
        assert found == wanted or math.isclose(found, wanted, rel_tol=1e-15)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=300), kind=st.sampled_from(list(fuzzing.BASES)))
def test_any_bytes_are_read_or_refused(data, kind):
    with tempfile.TemporaryDirectory() as folder:
        assert fuzzing.run(kind, data, Path(folder)) in ("read", "refused")


def test_random_bytes_as_parquet(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"y": [0, 1] * 50, "x": [0.5] * 100, "u": ["a", "b"] * 50})
    frame.write_parquet(path)
    whole = path.read_bytes()
    schema = TableSchema.from_dict({"label": "y", "dense": ["x"], "one_hot": ["u"]})
    for _ in range(100):
        data = bytearray(whole)
        for at in rng.integers(len(data), size=3):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            list(read_raw("table", path, schema=schema, on_error="skip", max_bad=10**9))
