"""A fit that is killed goes on from its checkpoint and ends in the same bits."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys

import pytest
import torch
from hashed_log import HashedLog, hashed_and_dense

from lma.errors import FormatError, StateMismatchError
from lma.signatures import FitCheckpoint, SignatureConfig, fit_signatures

CONFIGS = {
    "random": SignatureConfig("labelled_context", num_codes=4),
    "rows": SignatureConfig("rows", num_codes=4, sample_rows=200),
    "learned": SignatureConfig(kind="learned", num_codes=2, code_bits=2, dim=4, passes=2),
}

# Kills itself once the checkpoint has been written `after` times.
VICTIM = """
import os, signal, sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from hashed_log import HashedLog, hashed_and_dense
from test_fit_checkpoint import CONFIGS
from lma.signatures import FitCheckpoint, fit_signatures

class Fatal(FitCheckpoint):
    written = 0
    def save(self, fit):
        super().save(fit)
        Fatal.written += 1
        if Fatal.written == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

_, rows, labels, _ = hashed_and_dense()
log = HashedLog(rows, labels, ("user", "movie"))
fit_signatures(log, CONFIGS[sys.argv[1]], checkpoint=Fatal(Path(sys.argv[2]), "this", 100))
"""


def log():
    _, rows, labels, _ = hashed_and_dense()
    return HashedLog(rows, labels, ("user", "movie"))


# 400 rows in batches of 70: a checkpoint after every second one and at the end of a pass.
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "after"), [("random", 5), ("rows", 6), ("learned", 6)])
def test_a_killed_fit_ends_in_the_same_bits(tmp_path, kind, after):
    path = tmp_path / "checkpoint"
    here = __file__.rpartition("/")[0]
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, kind, path, str(after), here], check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    checkpoint = FitCheckpoint(path, "this", 100)
    fit = checkpoint.load()
    assert 0 < fit.rows_done < 400
    assert fit.passes_done >= 1
    seen = []
    table = fit_signatures(
        log(), CONFIGS[kind], checkpoint=checkpoint, progress=lambda *args: seen.append(args)
    )
    first, total, tokens = seen[0]
    assert first > fit.passes_done * 400
    assert total == fit.num_passes * 400
    assert tokens == 42
    whole = fit_signatures(log(), CONFIGS[kind])
    assert torch.equal(table.codes, whole.codes)
    assert torch.equal(table.fingerprints, whole.fingerprints)
    # Done is done: once more reads no row.
    seen.clear()
    again = fit_signatures(
        log(), CONFIGS[kind], checkpoint=checkpoint, progress=lambda *args: seen.append(args)
    )
    assert torch.equal(again.codes, whole.codes)
    assert not seen
    checkpoint.remove()
    assert checkpoint.load() is None


def test_checkpoints_of_others_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "checkpoint"
    fit_signatures(log(), CONFIGS["random"], checkpoint=FitCheckpoint(path, "this"))
    with pytest.raises(StateMismatchError, match="fit of this, this is one of that"):
        FitCheckpoint(path, "that").load()
    good = path.read_bytes()
    for bad in (b"", good[:40], good[: len(good) // 2], b"not a pickle"):
        path.write_bytes(bad)
        with pytest.raises(FormatError, match="not a checkpoint, or damaged"):
            FitCheckpoint(path, "this").load()
    path.write_bytes(pickle.dumps({"format": (99, 99), "identity": "this", "fit": None}))
    with pytest.raises(FormatError, match=r"\(99, 99\), this lma reads"):
        FitCheckpoint(path, "this").load()


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def test_a_checkpoint_runs_no_code(tmp_path, capsys):
    path = tmp_path / "checkpoint"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FormatError, match=r"builtins\.print has no place"):
        FitCheckpoint(path, "this").load()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("lma.signatures.checkpoint", "pickle.loads"),  # a module that one of ours imports
        ("lma.signatures.checkpoint", "pickle"),
        ("lma.signatures.fit", "fit_signatures"),  # ours, and no class
        ("numpy", "ndarray.tofile"),
    ],
)
def test_a_checkpoint_makes_classes_of_ours_only(tmp_path, module, name):
    path = tmp_path / "checkpoint"
    code = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)
    )
    path.write_bytes(code + b"\x93.")
    with pytest.raises(FormatError, match="has no place"):
        FitCheckpoint(path, "this").load()


def test_what_a_killed_writing_left_is_swept(tmp_path):
    checkpoint = FitCheckpoint(tmp_path / "checkpoint", "this")
    for left in (".checkpoint-ab_cdefg", ".checkpoint-z1234567"):
        (tmp_path / left).write_bytes(b"half of it")
    others = {".checkpoints", ".checkpoint-mine", ".checkpoint-b-ab_cdefg"}
    for name in others:
        (tmp_path / name).write_bytes(b"another's")
    fit_signatures(log(), CONFIGS["random"], checkpoint=checkpoint)
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint", *others}


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    checkpoint = FitCheckpoint(path, "this")
    fit_signatures(log(), CONFIGS["random"], checkpoint=checkpoint)
    before = path.read_bytes()

    def full(content, file, protocol):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pickle, "dump", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(None)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
