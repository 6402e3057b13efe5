"""Killed runs, full disks, other processes, threads and workers."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from torch.utils.data import DataLoader

from lma.data import BatchStream, Dataset, prepare, shard_writer, verify, write_synthetic
from lma.data.output_folder import OutputFolder
from lma.data.prefetch import prefetch
from lma.errors import DataError, FormatError

PREPARE = """
import sys
import lma.data.text_blocks as blocks
blocks.BLOCK_BYTES = 20_000
from lma.data import prepare
prepare("criteo", sys.argv[1], sys.argv[2], progress=lambda *p: print(*p, flush=True))
"""


@pytest.mark.parametrize("lines", [1, 20, 36])
def test_kill_9_leaves_no_dataset_and_the_next_run_is_right(
    synthetic_log, synthetic_dataset, tmp_path, lines
):
    out = tmp_path / "d"
    arguments = [sys.executable, "-c", PREPARE, str(synthetic_log), str(out)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    for _ in range(lines):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if out.exists():
        # It was faster than the signal.
        verify(out)
    else:
        with pytest.raises(FormatError, match="no prepared dataset"):
            Dataset.open(out)
    again = prepare("criteo", synthetic_log, out, seed=3)
    assert again.meta["splits"] == synthetic_dataset.meta["splits"]
    assert {path.name for path in tmp_path.iterdir()} == {"d"}
    verify(out)


def test_kill_9_between_the_two_renames_loses_nothing(synthetic_log, tmp_path):
    prepare("criteo", synthetic_log, tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "d.replaced")
    with contextlib.suppress(RuntimeError), OutputFolder(tmp_path / "d"):
        # The old dataset is back before anything else happens.
        Dataset.open(tmp_path / "d")
        raise RuntimeError
    (tmp_path / "bad").write_text("x")
    (tmp_path / "d").rename(tmp_path / "d.replaced")
    with pytest.raises(DataError):
        prepare("criteo", tmp_path / "bad", tmp_path / "d")
    (tmp_path / "bad").unlink()
    Dataset.open(tmp_path / "d")
    assert {path.name for path in tmp_path.iterdir()} == {"d"}


def test_a_full_disk_leaves_the_old_dataset(synthetic_log, tmp_path, monkeypatch):
    before = prepare("criteo", synthetic_log, tmp_path / "d").meta

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_writer, "_columns", no_space)
    with pytest.raises(OSError, match="No space left"):
        prepare("criteo", synthetic_log, tmp_path / "d", ids="hashed")
    assert {path.name for path in tmp_path.iterdir()} == {"d"}
    assert verify(tmp_path / "d").meta == before


def test_a_full_disk_leaves_the_old_log(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / ".log.partial").symlink_to("/dev/full")
    (tmp_path / "log").write_text("before")
    with pytest.raises(OSError, match="No space left"):
        write_synthetic(tmp_path / "log", rows=1000)
    assert (tmp_path / "log").read_text() == "before"


def test_ctrl_c_leaves_nothing_behind(synthetic_log, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("criteo", synthetic_log, tmp_path / "d", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_two_processes_cannot_prepare_one_folder(synthetic_log, tmp_path):
    with OutputFolder(tmp_path / "d"), pytest.raises(DataError, match="another process"):
        prepare("criteo", synthetic_log, tmp_path / "d")
    # The first one was not disturbed.
    assert (tmp_path / "d").is_dir()


def test_a_file_that_cannot_be_read(synthetic_log, tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(synthetic_log.read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="secret: cannot be read: Permission denied"):
        prepare("criteo", path, tmp_path / "d")


# --- the loader ---------------------------------------------------------------------------


def same(a, b):
    return torch.equal(a.values, b.values) and torch.equal(a.dense, b.dense)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_readers_share_all_rows(synthetic_dataset, shuffle, world):
    whole = list(synthetic_dataset.batches("train", 100, shuffle=shuffle))
    parts = [
        list(synthetic_dataset.batches("train", 100, shuffle=shuffle, rank=r, world_size=world))
        for r in range(world)
    ]
    assert sum(map(len, parts)) == len(whole)
    assert all(same(parts[n % world][n // world], batch) for n, batch in enumerate(whole))
    even = [
        len(list(synthetic_dataset.batches("train", 100, rank=r, world_size=world, drop_last=True)))
        for r in range(world)
    ]
    assert len(set(even)) == 1
    resumed = synthetic_dataset.batches(
        "train", 100, shuffle=shuffle, rank=world - 1, world_size=world, start_batch=1
    )
    assert all(same(a, b) for a, b in zip(resumed, parts[-1][1:], strict=True))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_data_loader_s_workers_keep_the_order(synthetic_dataset, workers):
    stream = BatchStream(synthetic_dataset, "train", 100, shuffle=True, seed=1, epoch=2)
    whole = list(synthetic_dataset.batches("train", 100, shuffle=True, seed=1, epoch=2))
    context = "spawn" if workers == 1 else "fork" if workers else None
    if context is not None and context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} here")
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, multiprocessing_context=context
    )
    loaded = list(loader)
    assert len(loaded) == len(whole)
    assert all(same(a, b) for a, b in zip(loaded, whole, strict=True))


def test_bad_rank(synthetic_dataset):
    with pytest.raises(ValueError, match="rank must be in"):
        synthetic_dataset.batches("train", 8, rank=2, world_size=2)


def test_killed_and_resumed_gives_the_same_batches(synthetic_dataset):
    whole = list(synthetic_dataset.batches("train", 64, shuffle=True, seed=5, epoch=1))
    code = f"""
import os, signal
from lma.data import Dataset
dataset = Dataset.open({str(synthetic_dataset.path)!r})
for n, batch in enumerate(dataset.batches("train", 64, shuffle=True, seed=5, epoch=1)):
    print(n, flush=True)
    if n == 12:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    reached = int(done.stdout.split()[-1])
    assert reached == 12
    rest = synthetic_dataset.batches(
        "train", 64, shuffle=True, seed=5, epoch=1, start_batch=reached + 1
    )
    assert all(same(a, b) for a, b in zip(rest, whole[reached + 1 :], strict=True))


# --- prefetch -----------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_prefetch_gives_the_same_items(depth):
    assert list(prefetch(iter(range(100)), depth)) == list(range(100))
    assert list(prefetch(iter([]), depth)) == []


@pytest.mark.parametrize("depth", [0, 2])
def test_prefetch_raises_in_place(depth):
    def items():
        yield 1
        raise DataError("bad")

    found = prefetch(items(), depth)
    assert next(found) == 1
    with pytest.raises(DataError, match="bad"):
        next(found)


def test_prefetch_ends_its_thread_when_the_consumer_stops():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    found = prefetch(items(), 2)
    next(found)
    assert threading.active_count() == before + 1
    found.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_many_threads_read_one_dataset(synthetic_dataset):
    whole = list(synthetic_dataset.batches("train", 100, shuffle=True))
    wrong = []

    def read():
        batches = list(synthetic_dataset.batches("train", 100, shuffle=True))
        if not all(same(a, b) for a, b in zip(batches, whole, strict=True)):
            wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
