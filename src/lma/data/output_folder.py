"""A folder that appears under its name only when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType

from lma.data.dataset import META_FILE
from lma.errors import DataError


class OutputFolder:
    """Work in `NAME.partial`; on success it becomes `NAME`, on an error it is removed.

    A killed run leaves only the partial folder, which the next run removes. A dataset that is
    already there stays until the new one is complete: it is moved to `NAME.replaced` for the
    moment between two renames, and brought back by the next run should that moment be the last.

    Args:
        target: The folder to make.

    Raises:
        DataError: Something else than a dataset is at `target`, or another process is at work.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._partial = target.with_name(target.name + ".partial")
        self._replaced = target.with_name(target.name + ".replaced")
        self._lock = -1

    def __enter__(self) -> Path:
        target = self._target
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._replaced.exists():
            if target.exists():
                shutil.rmtree(self._replaced)
            else:
                os.replace(self._replaced, target)
        if target.exists():
            if not target.is_dir():
                raise DataError(f"{target}: exists and is not a folder")
            if any(target.iterdir()) and not (target / META_FILE).exists():
                raise DataError(
                    f"{target}: exists and is no prepared dataset; choose another folder or "
                    "empty this one"
                )
        self._partial.mkdir(exist_ok=True)
        self._lock = os.open(self._partial, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise DataError(f"{self._partial}: another process is preparing {target}") from None
        for leftover in self._partial.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return self._partial

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                shutil.rmtree(self._partial, ignore_errors=True)
                return
            if self._target.exists():
                os.replace(self._target, self._replaced)
            os.replace(self._partial, self._target)
            shutil.rmtree(self._replaced, ignore_errors=True)
        finally:
            os.close(self._lock)
