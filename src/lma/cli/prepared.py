"""A raw log's prepared dataset, made once and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lma.cli.console import counter, progress


def open_or_prepare(
    format: str, log: Path, folder: Path, *, max_rows: int | None = None, **arguments: Any
) -> Any:
    """The dataset in `folder`, made unless the one there is of this log.

    Args:
        format, log: As `lma prepare` takes them.
        folder: Where the dataset is to be.
        max_rows, arguments: Of `lma.data.prepare`.
    """
    import lma.data

    found = find_prepared(format, log, folder, max_rows)
    if found is not None:
        return found
    with progress() as bars:
        tick = counter(bars, "preparing, bytes")
        return lma.data.prepare(
            format,
            [log],
            folder,
            max_rows=max_rows,
            progress=lambda _, done, total: tick(done, total),
            **arguments,
        )


def find_prepared(format: str, log: Path, folder: Path, max_rows: int | None = None) -> Any:
    """The dataset in `folder` if it was made from this log, by its files' names and sizes."""
    from lma.data import Dataset
    from lma.errors import FormatError

    try:
        dataset = Dataset.open(folder)
    except (FormatError, OSError):
        return None  # none there yet, or an interrupted one
    files = log.rglob("*") if log.is_dir() else [log]
    sizes = {file.name: file.stat().st_size for file in files if file.is_file()}
    same = (
        dataset.meta["format"] == format
        and dataset.meta["max_rows"] == max_rows
        and all(sizes.get(s["file"]) == s["bytes"] for s in dataset.meta["sources"])
    )
    return dataset if same else None
