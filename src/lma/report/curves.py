"""Learning curves: validation AUC by training step, one panel per budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lma.report.canvas import add_axes, new_figure
from lma.report.labels import label_lines, label_width
from lma.report.palette import Look, looks
from lma.report.selection import metric
from lma.report.summary import Summary

WIDTH = 1040
_PANEL_HEIGHT, _LEFT, _TOP, _BOTTOM = 230.0, 62.0, 36.0, 48.0


def curve_points(summary: Summary) -> list[list[tuple[float, float]]]:
    """(step, validation AUC) of each seed; the epoch where a curve has no steps."""
    curves = []
    for run in summary.runs:
        has_steps = all("step" in entry for entry in run.curve)
        key = "step" if has_steps else "epoch"
        points = [(metric(entry, key), metric(entry, "auc")) for entry in run.curve]
        points = [(step, auc) for step, auc in points if math.isfinite(step + auc)]
        if points:
            curves.append(points)
    return curves


def mean_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Mean over seeds at the steps that every seed reached."""
    if not curves:
        return []
    by_step = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*(set(curve) for curve in by_step)))
    return [(step, math.fsum(c[step] for c in by_step) / len(by_step)) for step in steps]


def learning_curves(summaries: Sequence[Summary]) -> tuple[Any, bool] | None:
    """A figure with one panel per budget, the full tables in each.

    Args:
        summaries: Cells of one dataset.

    Returns:
        The figure and whether a y axis hides the first evaluations of some run; None where no
        run has a curve.
    """
    cells = [s for s in summaries if curve_points(s)]
    if not cells:
        return None
    look = looks(s.method for s in summaries)
    free = [s for s in cells if not s.target]
    targets = list(dict.fromkeys(s.target for s in cells if s.target)) or [""]
    columns = 2 if len(targets) > 1 else 1
    rows = math.ceil(len(targets) / columns)
    pitch = _TOP + _PANEL_HEIGHT + _BOTTOM
    figure = new_figure(WIDTH, rows * pitch)
    room = min(0.4 * WIDTH / columns, label_width([s.method for s in cells]) + 8)
    is_cut = False
    for number, target in enumerate(targets):
        row, column = divmod(number, columns)
        left = column * WIDTH / columns + _LEFT
        width = WIDTH / columns - _LEFT - room
        axes = add_axes(figure, left, row * pitch + _TOP, width, _PANEL_HEIGHT)
        shown = free + [s for s in cells if target and s.target == target]
        low, high, hides = _limits(shown)
        is_cut = is_cut or hides
        axes.set_ylim(low, high)
        _draw_panel(axes, shown, look)
        axes.set_title(target)
        axes.set_ylabel("validation AUC" if column == 0 else "")
        has_steps = all("step" in e for s in shown for run in s.runs for e in run.curve)
        axes.set_xlabel("training step" if has_steps else "epoch")
    return figure, is_cut


def _draw_panel(axes: Any, cells: Sequence[Summary], look: dict[str, Look]) -> None:
    ends = []
    last = 0.0
    for s in cells:
        style = look[s.method]
        dash = (0, (5, 3)) if s.is_full else "-"
        seeds = curve_points(s)
        mean = mean_curve(seeds) or seeds[0]
        last = max([last, *(step for curve in seeds for step, _ in curve)])
        for curve in seeds if len(seeds) > 1 else []:
            axes.plot(*zip(*curve, strict=True), color=style.color, alpha=0.28, linewidth=0.9)
        axes.plot(
            *zip(*mean, strict=True),
            color=style.color,
            linewidth=2.4 if style.is_strong else 1.5,
            linestyle=dash,
            marker=style.marker if len(mean) == 1 else None,
            zorder=4 if style.is_strong else 3,
        )
        ends.append((s.method, *mean[-1], style.color, style.is_strong))
    axes.set_xlim(0, last * 1.02 or 1)
    axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    low, high = axes.get_ylim()
    label_lines(
        axes,
        [(name, x, min(max(y, low), high), color, strong) for name, x, y, color, strong in ends],
        side="right",
        gap=14.0,
    )


def _limits(cells: Sequence[Summary]) -> tuple[float, float, bool]:
    """Limits that let the ends be told apart; whether earlier evaluations fall below them."""
    curves = [curve for s in cells for curve in curve_points(s)]
    every = [auc for curve in curves for _, auc in curve]
    ends = [curve[-1][1] for curve in curves]
    spread = max(max(every) - min(ends), 0.002)
    low = max(min(every), min(ends) - 1.2 * spread)
    return low - 0.06 * spread, max(every) + 0.06 * spread, low > min(every)
