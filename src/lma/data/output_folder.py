"""A folder that appears under its name only when it is complete."""

from __future__ import annotations

import os
import shutil
import sys
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
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{target.parent}: cannot be made: {error.strerror}") from None
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
        try:
            self._partial.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(f"{self._partial}: cannot be made: {error.strerror}") from None
        self._lock = _lock(self._partial)
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
            if self._lock >= 0:
                os.close(self._lock)


def _lock(folder: Path) -> int:
    """Lock a folder for this process; the lock ends with the process, however that ends."""
    if sys.platform == "win32":
        return -1
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise DataError(f"{folder}: another process is at work here") from None
    return descriptor
