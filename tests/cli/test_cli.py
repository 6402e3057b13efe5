"""The commands as a person types them, in a process of their own where that matters."""

import io
import math
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn

from lma.cli.inspect import find_token
from lma.cli.main import main
from lma.cli.signatures import StageBars
from lma.hashing import hash_string, to_signed
from lma.results import read_results


def lma(*words, capsys=None, status=0):
    sys.argv = ["lma", *map(str, words)]
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr() if capsys else None
    assert stop.value.code == status, captured
    return captured


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from lma.data import write_synthetic

    folder = tmp_path_factory.mktemp("cli")
    write_synthetic(folder / "log.tsv", rows=4000, scale=1 / 4096)
    return folder


def test_the_whole_way(folder, capsys):
    log, data, run = folder / "log.tsv", folder / "data", folder / "run"
    said = lma("prepare", "criteo", log, data, capsys=capsys)
    assert "tokens" in said.out
    lma("prepare", "criteo", data, "--verify", capsys=capsys)
    lma("signatures", data, folder / "sig", "--set", "code_bits=4", capsys=capsys)
    said = lma(
        "train", data, run, "--method", "lma-learned", "--budget", "8x", "--epochs", "1",
        "--signatures", folder / "sig", "--set", "training.batch_size=512", capsys=capsys,
    )  # fmt: skip
    assert "test AUC" in said.out
    (result,) = read_results(run / "results.jsonl")
    said = lma("evaluate", run / "model", data, capsys=capsys)
    assert f"AUC {result.test['auc']:.4f}" in said.out
    lma("predict", run / "model", "criteo", log, "--out", folder / "p.csv", capsys=capsys)
    scores = pl.read_csv(folder / "p.csv")
    assert scores.columns == ["probability", "label"]
    assert len(scores) == 4000
    # The written config repeats the run.
    lma(
        "train", data, folder / "again", "--config", run / "config.toml",
        "--signatures", folder / "sig", capsys=capsys,
    )  # fmt: skip
    (again,) = read_results(folder / "again" / "results.jsonl")
    assert again.test == result.test
    lma("report", run / "results.jsonl", "--out", folder / "r.html", capsys=capsys)
    assert "<html" in (folder / "r.html").read_text()
    said = lma("report", run / "results.jsonl", "--markdown", "serving", capsys=capsys)
    assert said.out.startswith("|")


def test_predict_without_labels(folder, tmp_path, capsys):
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    lma(
        "train",
        tmp_path / "d",
        tmp_path / "r",
        "--method",
        "hashed",
        "--epochs",
        "1",
        capsys=capsys,
    )
    lines = (folder / "log.tsv").read_text().splitlines()[:20]
    (tmp_path / "new.tsv").write_text("".join(line.split("\t", 1)[1] + "\n" for line in lines))
    lma(
        "predict", tmp_path / "r" / "model", "criteo", tmp_path / "new.tsv",
        "--out", tmp_path / "p.csv", capsys=capsys,
    )  # fmt: skip
    assert pl.read_csv(tmp_path / "p.csv").shape == (20, 1)


def test_demo_writes_a_table_and_a_page(tmp_path, capsys):
    arguments = (
        "demo", "--out", tmp_path, "--rows", "3000",
        "--set", 'methods=["full","hashed","lma-rows"]', "--set", "training.epochs=1",
    )  # fmt: skip
    said = lma(*arguments, capsys=capsys)
    assert "synthetic" in said.out
    assert "lma rows" in said.out
    assert "synthetic" in (tmp_path / "report.html").read_text().lower()
    assert len(read_results(tmp_path / "results.jsonl")) == 5
    lma(*arguments, capsys=capsys)  # goes on where it stopped: nothing is run again
    assert len(read_results(tmp_path / "results.jsonl")) == 5


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("train", "/nowhere", "x"), 1, "no prepared dataset"),
        (("trian",), 2, "Did you mean 'train'"),
        (("prepare", "criteo", "/nowhere.tsv", "x"), 1, "/nowhere.tsv"),
        (("prepare", "criteo"), 2, "PATHS|INPUT"),
        (("prepare", "criteo", "only-one"), 2, "at least one input"),
        (("evaluate", "/nowhere", "x"), 1, "lma.json is missing"),
        (("report", "/nowhere.jsonl"), 1, "nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line(words, status, message, capsys):
    import re

    said = lma(*words, capsys=capsys, status=status)
    assert re.search(message, said.err.replace("\n", " "))
    assert "Traceback" not in said.err


def test_settings_mistakes(folder, tmp_path, capsys):
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    for words, message in [
        (("--set", "training.epoch=1"), "did you mean 'epochs'"),
        (("--set", "nonsense"), "expected key=value"),
        (("--method", "lmaa-rows"), "did you mean 'lma-rows'"),
        (("--budget", "12 parsecs"), "found '12 parsecs'"),
        (("--budget", "100"), "hold no row"),
    ]:
        said = lma("train", tmp_path / "d", tmp_path / "r", *words, capsys=capsys, status=1)
        assert message in said.err.replace("\n", " ")


def test_a_run_is_not_repeated_and_a_dataset_not_overwritten(folder, tmp_path, capsys):
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    train = ("train", tmp_path / "d", tmp_path / "r", "--method", "hashed", "--epochs", "1")
    lma(*train, capsys=capsys)
    assert "nothing was done" in lma(*train, capsys=capsys).out
    assert len(read_results(tmp_path / "r" / "results.jsonl")) == 1
    said = lma("train", tmp_path / "d", tmp_path / "d", capsys=capsys, status=1)
    assert "is a dataset" in said.err
    said = lma("train", tmp_path / "d", tmp_path / "x", "--device", "tpu", capsys=capsys, status=1)
    assert "expected cpu or cuda" in said.err.replace("\n", " ")
    said = lma("train", tmp_path / "d", tmp_path / "x", "--device", "cuda", capsys=capsys, status=1)
    assert "sees no GPU" in said.err.replace("\n", " ")
    # Another config does not destroy the settings that a checkpoint belongs to.
    (tmp_path / "r" / "checkpoint.pt").write_bytes(b"")
    before = (tmp_path / "r" / "config.toml").read_bytes()
    lma(*train[:-1], "2", capsys=capsys, status=1)
    assert (tmp_path / "r" / "config.toml").read_bytes() == before


def test_other_signatures_are_refused(folder, tmp_path, capsys):
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    lma("signatures", tmp_path / "d", tmp_path / "s", capsys=capsys)
    said = lma(
        "train", tmp_path / "d", tmp_path / "r", "--method", "lma-rows",
        "--signatures", tmp_path / "s", capsys=capsys, status=1,
    )  # fmt: skip
    assert "the signatures given are labelled_context" in said.err.replace("\n", " ")


def test_stopped_signatures_go_on(folder, tmp_path, capsys, monkeypatch):
    """Ctrl-C at the second checkpoint; the same command ends in the same file, then is done."""
    from lma.signatures import FitCheckpoint

    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    fit = ("signatures", tmp_path / "d", tmp_path / "s", "--set", "code_bits=4")
    written = []

    def interrupted(self, fit, save=FitCheckpoint.save):
        save(self, fit)
        written.append(fit.passes_done)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FitCheckpoint, "save", interrupted)
        lma(*fit, capsys=capsys, status=130)
    assert written == [1, 2]
    assert (tmp_path / "s" / "checkpoint.pickle").exists()
    said = lma(*fit[:-1], "code_bits=5", capsys=capsys, status=1)
    assert "delete it to start anew" in said.err.replace("\n", " ")
    assert "tokens signed" in " ".join(lma(*fit, capsys=capsys).out.split())
    lma("signatures", tmp_path / "d", tmp_path / "whole", *fit[3:], capsys=capsys)
    names = [path.name for path in (tmp_path / "s").iterdir()]
    assert names == ["signatures.safetensors"]
    kept, whole = ((tmp_path / n / names[0]).read_bytes() for n in ("s", "whole"))
    assert kept == whole


def test_signatures_within_a_budget(folder, tmp_path, capsys):
    from lma.signatures import SignatureTable

    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", "--ids", "hashed", capsys=capsys)
    lma("signatures", tmp_path / "d", tmp_path / "s", "--budget", "3kB", "--method",
        "lma-context", "--max-tokens", "100000", capsys=capsys)  # fmt: skip
    table = SignatureTable.load(tmp_path / "s")
    # Buckets of eight lanes are not all full.
    assert 1000 < table.signature_bytes + table.index_bytes < 3000 + 26 * 8 * 18
    said = lma("signatures", tmp_path / "d", tmp_path / "t", "--max-tokens", "2", "--method",
               "lma-context", capsys=capsys)  # fmt: skip
    assert "raise --max-tokens" in " ".join(said.out.split())


def test_inspect_lists_neighbours(folder, tmp_path, capsys):
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    lma("signatures", tmp_path / "d", tmp_path / "s", "--set", "code_bits=4", capsys=capsys)
    said = lma("inspect", tmp_path / "s", tmp_path / "d", "0", "--table", "C1", "-k", "3",
               capsys=capsys)  # fmt: skip
    # Two lists of three: shared memory and equal codes in percent.
    assert "share most memory with" in said.out
    assert "are most like" in said.out
    assert said.out.count("%") == 2 * 3 * 2


def test_inspect_and_drift_of_hashed_ids(folder, tmp_path, capsys):
    """A log of hashed ids grows: who is signed anew moves nobody once the old ones are frozen."""
    from lma.data import Dataset
    from lma.signatures import SignatureTable

    lines = (folder / "log.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "less.tsv").write_text("".join(lines[: len(lines) // 2]))
    for name, log in (("less", tmp_path / "less.tsv"), ("more", folder / "log.tsv")):
        lma("prepare", "criteo", log, tmp_path / name, "--ids", "hashed", capsys=capsys)
        lma("signatures", tmp_path / name, tmp_path / f"{name}-s", "--method", "lma-context",
            "--set", "similarity=context", capsys=capsys)  # fmt: skip
    words = ("drift", tmp_path / "less-s", tmp_path / "more-s", tmp_path / "more")
    said = lma(*words, "--freeze", tmp_path / "frozen", capsys=capsys)
    assert "chunks moved" in said.out
    old, new, frozen = (
        SignatureTable.load(tmp_path / name) for name in ("less-s", "more-s", "frozen")
    )
    assert "no token that had codes moves" in " ".join(said.out.split())
    back = lma("drift", tmp_path / "more-s", tmp_path / "less-s", tmp_path / "less", "--freeze",
               tmp_path / "back", capsys=capsys)  # fmt: skip
    assert "signed tokens of" in back.out  # half of the log does not hold all tokens
    batch = next(Dataset.open(tmp_path / "more").batches("train", 1 << 16))
    table, ids = "C3", torch.from_numpy(np.unique(batch.values[:, 2]))
    codes, before, after = (t.codes_of(table, ids) for t in (frozen, old, new))
    known = before[:, 0] >= 0
    assert 0 < int(known.sum()) < len(ids)
    assert torch.equal(codes[known], before[known])
    assert torch.equal(codes[~known], after[~known])
    some = int(ids[known][0])
    said = lma("inspect", tmp_path / "more-s", tmp_path / "more", "--table", table, "-k", "2",
               "--", some, capsys=capsys)  # fmt: skip
    assert said.out.count("%") == 2 * 2
    lma("signatures", tmp_path / "more", tmp_path / "more-s", "--method", "lma-context",
        "--set", "similarity=context", "--keep-ids", capsys=capsys)  # fmt: skip
    kept = SignatureTable.load(tmp_path / "more-s")
    assert len(kept.neighbours(table, some, 2)) == 2
    again = lma("inspect", tmp_path / "more-s", tmp_path / "more", "--table", table, "-k", "2",
                "--", some, capsys=capsys)  # fmt: skip
    assert again.out.count("%") == 2 * 2


def test_drift_of_dictionary_ids(folder, tmp_path, capsys):
    """The same dictionary compares; another one is refused, and so is freezing learned codes."""
    fit = ("--method", "lma-context", "--set", "similarity=context")
    for name, rows in (("a", "1000"), ("b", "1500")):
        lma("prepare", "criteo", folder / "log.tsv", tmp_path / name, "--max-rows", rows,
            capsys=capsys)  # fmt: skip
        lma("signatures", tmp_path / name, tmp_path / f"{name}-s", *fit, capsys=capsys)
    said = lma("drift", tmp_path / "a-s", tmp_path / "a-s", tmp_path / "a", capsys=capsys)
    assert "0.0%" in said.out
    said = lma("drift", tmp_path / "a-s", tmp_path / "b-s", tmp_path / "b", capsys=capsys, status=1)
    assert "other dictionaries" in " ".join(said.err.split())
    said = lma("inspect", tmp_path / "a-s", tmp_path / "b", "0", "--table", "C1", capsys=capsys,
               status=1)  # fmt: skip
    assert "other dictionaries" in " ".join(said.err.split())
    lma("signatures", tmp_path / "a", tmp_path / "l-s", "--set", "code_bits=4", capsys=capsys)
    said = lma("drift", tmp_path / "l-s", tmp_path / "l-s", tmp_path / "a", "--freeze",
               tmp_path / "f", capsys=capsys, status=1)  # fmt: skip
    assert "are learned" in " ".join(said.err.split())


def test_one_class_only_still_gives_a_model(folder, tmp_path, capsys):
    lines = (folder / "log.tsv").read_text().splitlines()[:600]
    (tmp_path / "z.tsv").write_text("".join("0" + line[1:] + "\n" for line in lines))
    lma("prepare", "criteo", tmp_path / "z.tsv", tmp_path / "d", capsys=capsys)
    lma(
        "train",
        tmp_path / "d",
        tmp_path / "r",
        "--method",
        "hashed",
        "--epochs",
        "2",
        capsys=capsys,
    )
    (result,) = read_results(tmp_path / "r" / "results.jsonl")
    assert math.isnan(result.test["auc"])
    assert math.isfinite(result.test["log_loss"])
    assert (tmp_path / "r" / "model" / "lma.json").exists()


def test_ctrl_c_is_told_in_a_line(folder, tmp_path, capsys):
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    words = ["train", "d", "r", "--method", "hashed", "--epochs", "400", "--batch-size", "16"]
    words += ["--set", "training.patience=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lma", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    # A checkpoint shows that it trains: before, Ctrl-C may fall into an import that swallows it.
    while not (tmp_path / "r" / "checkpoint.pt").exists():
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert "Traceback" not in said


def test_predict_leaves_out_bad_rows_and_takes_options(folder, tmp_path, capsys):
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    lma(
        "train",
        tmp_path / "d",
        tmp_path / "r",
        "--method",
        "hashed",
        "--epochs",
        "1",
        capsys=capsys,
    )
    lines = (folder / "log.tsv").read_text().splitlines()[:30]
    (tmp_path / "bad.tsv").write_text("\n".join([*lines, "not a row"]) + "\n")
    predict = ("predict", tmp_path / "r" / "model", "criteo", tmp_path / "bad.tsv")
    lma(*predict, "--out", tmp_path / "p.csv", capsys=capsys, status=1)
    assert not (tmp_path / "p.csv").exists()
    lma(
        *predict, "--out", tmp_path / "p.csv", "--on-error", "skip", "--max-bad", "1",
        "-o", "compiled=false", capsys=capsys,
    )  # fmt: skip
    assert len(pl.read_csv(tmp_path / "p.csv")) == 30


@pytest.mark.parametrize(
    ("flags", "runs"), [((), 6), (("--repeat-chosen",), 4), (("--search-every-seed",), 6)]
)
def test_a_search_is_counted_before_it_starts(folder, tmp_path, capsys, flags, runs):
    """Two rates and one more decay are three runs, twice or repeated once."""
    lma("prepare", "criteo", folder / "log.tsv", tmp_path / "d", capsys=capsys)
    search = ("--methods", "full", "--seeds", "0,1", "--learning-rates", "1e-3,1e-2",
              "--weight-decays", "0,1e-5")  # fmt: skip
    said = lma("compare", tmp_path / "d", tmp_path / "r.jsonl", *search, *flags, "--dry-run",
               capsys=capsys).out  # fmt: skip
    assert f"training: {runs} runs" in " ".join(said.split())
    assert not (tmp_path / "r.jsonl").exists()


def test_list_version_and_help(capsys):
    listed = lma("compare", "--list", capsys=capsys).out
    for method in ("lma-labelled-context", "mixed-dimension", "tensor-train", "deep-hash"):
        assert method in listed
    for name in ("lma-labelled-context", "cce", "cafe"):
        assert name in listed.split()
    assert lma("--version", capsys=capsys).out.startswith("lma ")
    for verb in ("demo", "prepare", "train", "compare", "predict", "report", "inspect"):
        assert "Example" in lma(verb, "--help", capsys=capsys).out


def test_tokens_by_name_part_or_number():
    titles = ["Toy Story 2", "Toy Story", "A Bug's Life"]
    for text, number in (("toy story", 1), ("toy", 0), ("life", 2), ("1", 1)):
        assert find_token(text, titles, lambda _: True) == number
    with pytest.raises(ValueError, match="no token is called 'zz'"):
        find_token("zz", titles, lambda _: True)


def test_hashed_tokens_by_raw_value_or_id():
    """A raw value of digits alone was taken for an id."""
    c1, digits = (to_signed(hash_string(text)) for text in ("C1", "123"))
    assert find_token("C1", None, {c1}.__contains__) == c1
    assert find_token("123", None, {digits, 123}.__contains__) == digits
    assert find_token("123", None, {123}.__contains__) == 123
    assert find_token("-123", None, {-123}.__contains__) == -123
    # Nobody: an error will follow, about what the log would call it.
    assert find_token("123", None, set().__contains__) == digits
    too_large = str(1 << 63)
    assert find_token(too_large, None, set().__contains__) == to_signed(hash_string(too_large))


def test_it_is_installed():
    done = subprocess.run(
        [sys.executable, "-c", "from lma.cli import main; import sys; sys.argv=['lma']; main()"],
        capture_output=True,
        text=True,
    )
    assert "Usage" in done.stdout + done.stderr


def test_bars_of_signatures_count_each_pass_from_the_start():
    with Progress(TextColumn("{task.fields[note]}"), console=Console(file=io.StringIO())) as bars:
        stages = StageBars(bars, 100)
        stages.begin("pass 1 of 2")
        stages.rows_done(60, 200, 7)
        stages.rows_done(100, 200, 8)
        stages.begin("directions")
        stages.begin("pass 2 of 2")
        stages.rows_done(160, 200, 8)
        stages.begin("codes")
        stages.end()
    shown = [(t.description, t.completed, t.total) for t in bars.tasks]
    assert shown == [
        ("pass 1 of 2", 100, 100),
        ("directions", 1, 1),
        ("pass 2 of 2", 60, 100),
        ("codes", 1, 1),
    ]
    assert "8 tokens" in bars.tasks[0].fields["note"]
