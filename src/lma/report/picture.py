"""The picture: test AUC against bytes, one line per method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from lma.report.byte_axis import draw_byte_axis
from lma.report.labels import label_lines, label_width
from lma.report.palette import INK, MUTED, Look, looks
from lma.report.statistics import Estimate
from lma.report.summary import Summary
from lma.report.units import human_bytes, human_ratio, score

Axis = Literal["serving", "weights", "training"]
AXIS_LABELS = {
    "serving": "serving bytes: weights + signatures + index",
    "weights": "bytes of weights alone",
    "training": "training bytes: serving + gradients + optimizer state",
}
_RATIO_LABELS = {
    "serving": "times smaller",
    "weights": "times fewer weights",
    "training": "reference table over training bytes",
}


def draw_picture(axes: Any, summaries: Sequence[Summary], x: Axis) -> dict[str, str]:
    """Draw test AUC against bytes for the cells of one dataset.

    Bands are 95 % intervals of the mean over seeds. A cell without finite AUC or bytes is left
    out. Labels stand left of the lines, where the methods are furthest apart.

    Args:
        axes: Empty axes, with their final place in the figure.
        summaries: Cells of one dataset.
        x: Which bytes.

    Returns:
        What to show over each point, by the `gid` that it was drawn with.
    """
    points = [s for s in summaries if _is_drawable(s, x)]
    axes.set_ylabel("test AUC")
    axes.set_xlabel(AXIS_LABELS[x])
    if not points:
        axes.text(0.5, 0.5, "no finite AUC to draw", ha="center", transform=axes.transAxes)
        return {}
    _set_limits(axes, points, x)
    look = looks(s.method for s in summaries)
    tooltips: dict[str, str] = {}
    labels = []
    for number, method in enumerate(dict.fromkeys(s.method for s in points)):
        cells = sorted((s for s in points if s.method == method), key=lambda s: _bytes(s, x).mean)
        if method == "full":
            _draw_level(axes, cells[-1], x)
        else:
            _draw_line(axes, cells, x, look[method])
        for step, cell in enumerate(cells):
            gid = f"point-{number}-{step}"
            _draw_point(axes, cell, x, look[method], gid)
            tooltips[gid] = _tooltip(cell, x)
        if method != "full":
            first = cells[0]
            labels.append(
                (
                    method,
                    _bytes(first, x).mean,
                    first.test_auc.mean,
                    look[method].color,
                    look[method].is_strong,
                )
            )
    label_lines(axes, labels, side="left")
    return tooltips


def _draw_line(axes: Any, cells: Sequence[Summary], x: Axis, look: Look) -> None:
    at = [_bytes(s, x).mean for s in cells]
    if len(cells) > 1:
        axes.plot(
            at,
            [s.test_auc.mean for s in cells],
            color=look.color,
            linewidth=2.4 if look.is_strong else 1.5,
            zorder=4 if look.is_strong else 3,
        )
    ends = [s.test_auc.interval() for s in cells]
    if len(cells) > 1 and all(math.isfinite(low) for low, _ in ends):
        low, high = zip(*ends, strict=True)
        axes.fill_between(at, low, high, color=look.color, alpha=0.13, linewidth=0, zorder=1)
    else:
        for place, (bottom, top) in zip(at, ends, strict=True):
            if math.isfinite(bottom):
                axes.plot([place, place], [bottom, top], color=look.color, alpha=0.4, linewidth=4)


def _draw_point(axes: Any, cell: Summary, x: Axis, look: Look, gid: str) -> None:
    axes.plot(
        [_bytes(cell, x).mean],
        [cell.test_auc.mean],
        linestyle="none",
        marker=look.marker,
        markersize=14 if look.marker == "*" else 8 if look.is_strong else 7,
        markerfacecolor=look.color,
        markeredgecolor="none",
        zorder=6 if look.is_strong else 5,
        gid=gid,
    )


def _draw_level(axes: Any, full: Summary, x: Axis) -> None:
    """A line across the figure at the quality of the full tables."""
    level = full.test_auc.mean
    axes.axhline(level, color=INK, linewidth=1, linestyle=(0, (4, 4)), alpha=0.7, zorder=2)
    low, high = full.test_auc.interval()
    if math.isfinite(low):
        axes.axhspan(low, high, color=INK, alpha=0.06, linewidth=0, zorder=0)
    axes.annotate(
        "full tables",
        (_bytes(full, x).mean, level),
        xytext=(0, -11),
        textcoords="offset points",
        ha="center",
        va="top",
        fontweight="bold",
        color=INK,
    )


def _set_limits(axes: Any, points: Sequence[Summary], x: Axis) -> None:
    at = [_bytes(s, x).mean for s in points]
    references = {s.reference_bytes for s in points}
    reference = references.pop() if len(references) == 1 else None
    names = [s.method for s in points if s.method != "full"]
    width = axes.get_window_extent().width
    room, margin = min(0.45, (label_width(names) + 14) / width) if names else 0.06, 0.06
    span = max(4.0, math.log2(max(at) / min(at)))
    per_width = span / (1 - room - margin)
    middle = (math.log2(max(at)) + math.log2(min(at))) / 2
    low = middle - span / 2 - room * per_width
    draw_byte_axis(axes, 2**low, 2 ** (low + per_width), reference)
    if reference:
        axes.annotate(
            _RATIO_LABELS[x],
            (1, 1),
            xycoords="axes fraction",
            xytext=(0, 25),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=10,
        )
    axes.set_ylim(*_score_limits([s.test_auc for s in points]))


def _score_limits(scores: Sequence[Estimate]) -> tuple[float, float]:
    """Room for every mean; for the intervals too, unless they would dwarf the differences."""
    means = [s.mean for s in scores]
    spread = max(max(means) - min(means), 0.002)
    ends = [end for s in scores for end in s.interval() if math.isfinite(end)]
    low = max(min([*means, *ends]), min(means) - 0.35 * spread)
    high = min(max([*means, *ends]), max(means) + 0.35 * spread)
    room = max(0.09 * spread, 0.001)
    return low - room, high + room


def _tooltip(s: Summary, x: Axis) -> str:
    low, _ = s.test_auc.interval()
    error = f" ± {score(s.test_auc.mean - low)} (95 %)" if math.isfinite(low) else ""
    target = f", asked {s.target}" if s.target else ""
    return (
        f"{s.method}{target}: test AUC {score(s.test_auc.mean)}{error} in "
        f"{human_bytes(_bytes(s, x).mean)} {x}, {human_ratio(s.compression.mean)} in serving bytes"
    )


def _bytes(s: Summary, x: Axis) -> Estimate:
    return {"serving": s.serving, "weights": s.weights, "training": s.training}[x]


def _is_drawable(s: Summary, x: Axis) -> bool:
    return math.isfinite(s.test_auc.mean) and _bytes(s, x).mean > 0
