"""Where the bytes went: weights, signatures and index of every method, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lma.report.budget import budget_bytes
from lma.report.byte_axis import short_bytes
from lma.report.canvas import add_axes, new_figure
from lma.report.labels import label_width
from lma.report.palette import INDEX, INK, MUTED, SIGNATURES, WEIGHTS
from lma.report.summary import Summary
from lma.report.units import human_bytes

WIDTH = 1040
_BAR, _TOP, _BOTTOM = 24.0, 42.0, 30.0
_PARTS = (("weights", WEIGHTS), ("signatures", SIGNATURES), ("index", INDEX))


def byte_bars(summaries: Sequence[Summary]) -> Any | None:
    """A figure with one panel of bars per budget, each panel on its own scale.

    The full tables are left out where there is anything else: they would dwarf the rest.

    Args:
        summaries: Cells of one dataset.

    Returns:
        The figure; None where no cell has bytes.
    """
    cells = [s for s in summaries if s.serving.mean > 0]
    cells = [s for s in cells if not s.is_full] or cells
    if not cells:
        return None
    targets = list(dict.fromkeys(s.target for s in cells))
    panels = [[s for s in cells if s.target == target] for target in targets]
    heights = [_TOP + _BAR * len(panel) + _BOTTOM for panel in panels]
    left = label_width([s.method for s in cells])
    figure = new_figure(WIDTH, sum(heights))
    top = 0.0
    for panel, height in zip(panels, heights, strict=True):
        bars = _BAR * len(panel)
        axes = add_axes(figure, left, top + _TOP, WIDTH - left - 100, bars)
        _draw_panel(axes, panel)
        top += height
    return figure


def _draw_panel(axes: Any, panel: Sequence[Summary]) -> None:
    places = range(len(panel))
    start = [0.0] * len(panel)
    for name, color in _PARTS:
        sizes = [max(0.0, getattr(s, name).mean) for s in panel]
        axes.barh(places, sizes, left=start, height=0.66, color=color, linewidth=0)
        start = [a + b for a, b in zip(start, sizes, strict=True)]
    target = panel[0].target
    allowed = budget_bytes(target, panel[0].reference_bytes)
    widest = max(start)
    if allowed is not None and 0 < allowed < 4 * widest:
        axes.axvline(allowed, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=4)
        axes.annotate(
            f"budget {human_bytes(allowed)}",
            (allowed, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=MUTED,
            fontsize=10,
        )
        widest = max(widest, allowed)
    for place, total in zip(places, start, strict=True):
        axes.annotate(
            human_bytes(total),
            (total, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
        )
    axes.set_title(target or "no budget", pad=8)
    axes.set_yticks(list(places), labels=[s.method for s in panel])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(panel) - 0.5, -0.5)
    axes.set_xlim(0, widest)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.get_major_locator().set_params(nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _: short_bytes(value))
