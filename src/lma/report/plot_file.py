"""The picture as a file, for a README or a page of documentation."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lma.files import replace_file
from lma.report.canvas import add_axes, new_figure, style, to_bytes
from lma.report.picture import AXIS_LABELS, Axis, draw_picture
from lma.report.summary import Summary, summarise
from lma.results import RunResult

_MARGINS = (70.0, 70.0, 26.0, 52.0)


def save_plot(
    results: Iterable[RunResult],
    path: str | os.PathLike[str],
    x: Axis = "serving",
    size: tuple[float, float] = (900, 480),
) -> None:
    """Write the picture of test AUC against bytes, one panel below the other per dataset.

    Args:
        results: Result lines.
        path: Ends in .png or .svg; replaced whole or not at all.
        x: "serving", "weights" or "training" bytes.
        size: Width and height of a panel in pixels (a PNG has twice as many).

    Raises:
        ValueError: There is no result, or `x`, `size` or the ending of `path` is not one of these.
    """
    if x not in AXIS_LABELS:
        raise ValueError(f"x must be one of {sorted(AXIS_LABELS)}, got {x!r}")
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"path must end in .png or .svg, got {os.fspath(path)!r}")
    if len(size) != 2 or not all(math.isfinite(side) and side >= 200 for side in size):
        raise ValueError(f"size must be two numbers of pixels of at least 200, got {size!r}")
    summaries = summarise(results)
    with style():
        figure, _ = picture_figure(summaries, x, size, titles=True)
        content = to_bytes(figure, kind)
    with replace_file(Path(path)) as temporary:
        temporary.write_bytes(content)


def picture_figure(
    summaries: Sequence[Summary], x: Axis, size: tuple[float, float], *, titles: bool
) -> tuple[Any, dict[str, str]]:
    """The figure and its tooltips; to be called inside `style()`.

    Args:
        summaries: Cells of one or more datasets.
        x: Which bytes.
        size: Width and height of a panel, in pixels.
        titles: Whether each panel says its dataset, synthetic ones as such.
    """
    datasets = list(dict.fromkeys(s.dataset for s in summaries))
    width, height = size
    left, top, right, bottom = _MARGINS
    if not titles:
        top -= 26
    figure = new_figure(width, height * len(datasets))
    tooltips: dict[str, str] = {}
    for number, name in enumerate(datasets):
        cells = [s for s in summaries if s.dataset == name]
        axes = add_axes(
            figure, left, number * height + top, width - left - right, height - top - bottom
        )
        tooltips.update(draw_picture(axes, cells, x))
        if titles:
            title = name + (" (synthetic log)" if any(s.is_synthetic for s in cells) else "")
            figure.text(
                left / width,
                1 - (number * height + 12) / (height * len(datasets)),
                title,
                fontsize=13,
                fontweight="bold",
                va="top",
            )
    return figure, tooltips
