"""What the commands say, and how: one console, progress bars, errors without tracebacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out = Console()
err = Console(stderr=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress bars on stderr, so that a command's output can be piped."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        # In a narrow terminal the bar gives way to what is written beside it.
        BarColumn(bar_width=max(4, min(24, err.width - 76))),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=not sys.stderr.isatty(),
    ) as bars:
        yield bars


def counter(bars: Progress, title: str) -> Callable[..., None]:
    """A callable (done, total) that drives one bar; a total of 0 is unknown."""
    task = bars.add_task(title, total=None, note="")

    def update(done: int, total: int, *_: Any) -> None:
        bars.update(task, completed=done, total=total or None)

    return update


def size(number: float) -> str:
    """Bytes for people: 1.3 MB (10^6)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.2f} {unit}"
        number /= 1000
    raise AssertionError


def checked_device(name: str) -> str:
    """A device's name if it can be used here; an error that says what there is."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: expected cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this torch sees no GPU; use cpu")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: expected cpu or cuda")
    return name


def fail(message: str) -> None:
    """An error for people, on stderr."""
    err.print("[bold red]error:[/]", message, markup=True, highlight=False, soft_wrap=True)
