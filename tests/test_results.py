"""Result lines: what goes in comes out; torn, full and foreign files lose nothing silently."""

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lma.errors import FormatError, LmaError
from lma.results import ByteCount, RunResult, append_result, cell_id, read_results

BYTES = ByteCount(1_000_000, 250_000, 50, 3_000_000)


def result(seed: int = 0, **changes: object) -> RunResult:
    fields: dict[str, object] = {
        "dataset": "ml-1m",
        "method": "lma",
        "target": "16x",
        "seed": seed,
        "bytes": BYTES.to_dict(),
        "reference_bytes": 20_000_800,
        "validation": {"auc": 0.79, "log_loss": 0.5, "rows": 100.0},
        "test": {"auc": 0.78, "log_loss": 0.51, "rows": 100.0},
        "curve": ({"epoch": 1.0, "auc": 0.7}, {"epoch": 2.0, "auc": 0.79}),
        "train_seconds": 12.5,
        "config": {"method": {"name": "lma", "dims": [512, 256]}, "note": "naïve µ"},
        "environment": {"torch": "2.13.0", "threads": 2},
    }
    return RunResult(**{**fields, **changes})  # type: ignore[arg-type]


# --- bytes ----------------------------------------------------------------------------------


def test_bytes_add_up() -> None:
    assert BYTES.serving == 1_250_050
    assert BYTES.training == 4_250_050
    assert BYTES.to_dict() == {
        "weights": 1_000_000,
        "signatures": 250_000,
        "index": 50,
        "training_extra": 3_000_000,
        "serving": 1_250_050,
        "training": 4_250_050,
    }


def test_compressions() -> None:
    assert result().compression == 20_000_800 / 1_250_050
    assert result().weight_compression == 20.0008
    nothing = result(bytes=ByteCount(0).to_dict())
    assert nothing.compression == nothing.weight_compression == 20_000_800


# --- one line -------------------------------------------------------------------------------


def test_line_comes_back_equal() -> None:
    line = result().to_json()
    assert "\n" not in line
    assert RunResult.from_json(line) == result()


@given(st.text(max_size=20), st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_any_text_and_number_come_back(text: str, number: float, seed: int) -> None:
    original = result(seed, method=text, config={text: [text, number]}, train_seconds=number)
    line = original.to_json()
    assert "\n" not in line
    assert RunResult.from_json(line) == original


def test_cell_survives_the_file() -> None:
    @dataclasses.dataclass
    class Config:
        dims: tuple[int, ...] = (1, 2)

    config = {"a": Config(), "path": Path("x/y"), "np": np.float32(0.5), "int": np.int64(3)}
    original = result(config=config)
    back = RunResult.from_json(original.to_json())
    assert back.config == {"a": {"dims": [1, 2]}, "path": "x/y", "np": 0.5, "int": 3}
    assert back.cell == original.cell


def test_cell_names_data_config_and_seed_only() -> None:
    cell = result().cell
    assert len(cell) == 16
    assert int(cell, 16) >= 0
    assert result(train_seconds=99.0, environment={}, test={}).cell == cell
    others = [result(1), result(dataset="other"), result(config={})]
    assert len({cell, *(other.cell for other in others)}) == 4
    assert cell_id("d", {"a": 1, "b": 2}, 0) == cell_id("d", {"b": 2, "a": 1}, 0)


def test_pinned_cell() -> None:
    # A change of this value makes `compare` repeat every finished run.
    assert cell_id("d", {"a": [1, 0.5, None, "x"]}, 7) == "473df6ca507d00c1"


@pytest.mark.parametrize("bad", [float("inf"), np.float32("nan")])
def test_a_number_that_json_lacks_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        result(test={"auc": bad}).to_json()


def test_a_metric_that_does_not_exist_is_null() -> None:
    text = result(test={"auc": float("nan"), "rows": 3}).to_json()
    assert json.loads(text)["test"] == {"auc": None, "rows": 3}
    assert math.isnan(RunResult.from_json(text).test["auc"])


def test_a_foreign_type_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"a result cannot hold set: \{1\}"):
        result(config={"a": {1}}).to_json()
    with pytest.raises(TypeError, match="a result cannot hold type"):
        result(config={"a": ByteCount}).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.pop("format"), "not of format 1"),
        (lambda fields: fields.update(format=2), "not of format 1"),
        (lambda fields: fields.pop("seed"), r"missing \['seed'\], unknown \[\]"),
        (lambda fields: fields.update(sead=1), r"missing \[\], unknown \['sead'\]"),
        (lambda fields: fields.update(curve=3), "curve must be a list, found 3"),
    ],
)
def test_line_of_another_kind_is_refused(change, message: str) -> None:
    fields = json.loads(result().to_json())
    change(fields)
    with pytest.raises(FormatError, match=message):
        RunResult.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "result line is not JSON .*'not json'"),
        ("[1, 2]", "not of format 1"),
        ("", "not JSON"),
        (result().to_json()[:50], "not JSON"),
    ],
)
def test_other_text_is_refused(line: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        RunResult.from_json(line)
    assert isinstance(caught.value, (LmaError, ValueError))


# --- files ----------------------------------------------------------------------------------


def test_lines_are_appended_in_order(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "results.jsonl"
    for seed in range(3):
        append_result(file, result(seed))
    assert read_results(file) == [result(seed) for seed in range(3)]
    assert read_results(str(file)) == read_results(file)
    assert file.read_bytes().count(b"\n") == 3


def test_empty_file_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.touch()
    assert read_results(file) == []
    file.write_text(f"\n{result(0).to_json()}\n  \n{result(1).to_json()}\n")
    assert read_results(file) == [result(0), result(1)]


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "results.jsonl")


@pytest.mark.parametrize("cut", [1, 2, 100, -1])
def test_torn_last_line_is_left_out_and_then_replaced(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, result(0))
    whole = file.read_bytes()
    file.write_bytes(whole + (result(1).to_json().encode())[:cut])
    assert read_results(file) == [result(0)]
    append_result(file, result(2))
    assert read_results(file) == [result(0), result(2)]
    assert file.read_bytes().startswith(whole)


def test_torn_only_line_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_bytes(result(1).to_json().encode()[:-3])
    assert read_results(file) == []
    append_result(file, result(0))
    assert read_results(file) == [result(0)]


def test_a_result_that_cannot_be_written_as_json_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, result(0))
    before = file.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_result(file, result(1, train_seconds=float("nan")))
    assert file.read_bytes() == before


FULL_DISK = """
import resource, sys
from lma.results import RunResult, append_result
file, line = sys.argv[1], open(sys.argv[2], encoding="utf-8").read()
size = len(open(file, "rb").read())
for share in (0.0, 0.3, 0.6, 0.99):
    limit = size + int(share * len(line))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        append_result(file, RunResult.from_json(line))
    except OSError as error:
        print(error.errno, len(open(file, "rb").read()) - size)
"""


def test_full_disk_leaves_the_old_lines(tmp_path: Path) -> None:
    # A limit on the size of files stops a write half-way, as a full disk does.
    file, line = tmp_path / "results.jsonl", tmp_path / "line"
    append_result(file, result(0))
    before = file.read_bytes()
    line.write_text(result(1).to_json(), encoding="utf-8")
    command = [sys.executable, "-c", FULL_DISK, str(file), str(line)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [f"{errno.EFBIG} 0"] * 4 + [""]
    assert file.read_bytes() == before
    append_result(file, result(2))
    assert read_results(file) == [result(0), result(2)]


def test_refused_flush_leaves_the_old_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, result(0))
    before = file.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        append_result(file, result(1))
    assert file.read_bytes() == before


def test_bad_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(f"{result().to_json()}\n\n{{}}\n")
    with pytest.raises(FormatError, match=r"results\.jsonl:3: result line is not of format 1"):
        read_results(file)
    file.write_bytes(result().to_json().encode() + b"\n\xff\xfe\n")
    with pytest.raises(FormatError, match=r"results\.jsonl:2: .*can't decode"):
        read_results(file)
