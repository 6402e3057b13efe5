"""A failed or interrupted write leaves the old file or folder, and nothing else, behind."""

import errno
import os
import stat
from pathlib import Path

import pytest

from lma.files import replace_directory, replace_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask_022():
    old = os.umask(0o022)
    yield
    os.umask(old)


# --- files ----------------------------------------------------------------------------------


def test_file_is_written_with_its_folders(tmp_path: Path, umask_022: None) -> None:
    target = tmp_path / "a" / "b" / "file.txt"
    with replace_file(target) as temporary:
        assert temporary.parent == target.parent
        assert not target.exists()
        temporary.write_text("new")
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert target.read_text() == "new"
    assert names(target.parent) == ["file.txt"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(type(error)), replace_file(target) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_failure_of_the_last_steps_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="Input/output"), replace_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_file_is_on_disk_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, synced = tmp_path / "file.txt", []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(target.exists()))
    with replace_file(target) as temporary:
        temporary.write_text("new")
    assert synced
    assert not synced[0]


def test_umask_is_left_as_it_was(tmp_path: Path, umask_022: None) -> None:
    with replace_file(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert os.umask(0o022) == 0o022


# --- folders --------------------------------------------------------------------------------


def fill(folder: Path, text: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "part.txt").write_text(text)


def test_folder_is_written(tmp_path: Path, umask_022: None) -> None:
    target = tmp_path / "a" / "model"
    with replace_directory(target) as temporary:
        fill(temporary, "new")
        assert not target.exists()
    assert (target / "deep" / "part.txt").read_text() == "new"
    assert names(target.parent) == ["model"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_old_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "of-the-old-one.txt").write_text("old")
    with replace_directory(target) as temporary:
        fill(temporary, "new")
        assert names(target) == ["of-the-old-one.txt"]
    assert names(target) == ["deep"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_failed_filling_leaves_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "model"
    target.mkdir()
    fill(target, "old")
    with pytest.raises(type(error)), replace_directory(target) as temporary:  # noqa: PT012
        fill(temporary, "half")
        raise error
    assert (target / "deep" / "part.txt").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("after", [False, True])
def test_interrupted_swap_keeps_one_whole_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    failing: int,
    after: bool,
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    fill(target, "old")
    rename, calls = Path.rename, []

    def interrupted(self: Path, goal: Path) -> Path:
        calls.append(goal)
        if len(calls) - 1 == failing:
            if after:
                rename(self, goal)
            raise error
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(type(error)), replace_directory(target) as temporary:
        fill(temporary, "new")
    expected = "new" if failing == 1 and after else "old"
    assert (target / "deep" / "part.txt").read_text() == expected
    assert names(tmp_path) == ["model"]


def test_failed_first_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replace_directory(tmp_path / "model"):
        raise ZeroDivisionError
    assert names(tmp_path) == []
