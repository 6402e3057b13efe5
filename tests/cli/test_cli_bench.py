"""`lma bench` on tables of a handful of rows."""

import json
import sys

import pytest
import torch

from lma.cli.main import main

TINY = (
    "--dims", "4", "--scale", "1048576", "--batch", "16", "--repeats", "2", "--blocks", "2,4",
)  # fmt: skip


def bench(capsys, *words, status=0):
    sys.argv = ["lma", "bench", *map(str, words)]
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    assert stop.value.code == status, captured
    return captured


# FBGEMM, where it is installed, warns of its own old habits.
@pytest.mark.filterwarnings("ignore")
def test_a_table_and_json_lines(tmp_path, capsys):
    threads = torch.get_num_threads()
    target = tmp_path / "deep" / "bench.jsonl"
    try:
        said = bench(capsys, *TINY, "--threads", "1", "--out", target)
    finally:
        torch.set_num_threads(threads)
    text = " ".join(said.out.split())
    for popularity in ("zipf", "uniform"):
        assert f"dim 4, {popularity} ids" in text
    for column in ("forward", "/select", "/bags", "step", "/Adagrad", "/FBGEMM"):
        assert column in text
    assert said.out.count("learned block 4") == said.out.count("random block 2") == 2
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert {line["threads"] for line in lines} == {1}
    assert {"machine", "torch", "numba", "commit"} <= lines[0].keys()
    ours = [line for line in lines if line["method"] == "lma random block 2"]
    assert [line["what"] for line in ours] == ["forward", "training step"] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--blocks", "3"), "--blocks: 3 does not divide --dims 4"),
        (("--kinds", "magic"), "--kinds: expected random or learned, found ['magic']"),
        (("--popularity", "flat"), "--popularity: expected zipf or uniform, found ['flat']"),
        (("--dims", "four"), "--dims: expected numbers with commas, found 'four'"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(tmp_path, capsys, words, message):
    target = tmp_path / "bench.jsonl"
    said = bench(capsys, *TINY, *words, "--out", target, status=1)
    assert message in said.err.replace("\n", " ")
    assert not target.exists()
