"""Realised against wanted sharing of pairs of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lma.report.canvas import add_axes, new_figure
from lma.report.extras import Sharing
from lma.report.palette import INK, MUTED, WEIGHTS
from lma.report.units import signed

SIDE = 360.0
MOST_POINTS = 1500
"""Above so many pairs a figure shows their density instead of the pairs themselves."""


def sharing_figure(sharing: Sharing) -> Any:
    """A square figure: wanted similarity on x, shared fraction on y, the diagonal as the aim.

    Up to `MOST_POINTS` pairs are drawn one by one, more as hexagons whose darkness is the
    number of pairs (on a logarithmic scale).

    Args:
        sharing: At least one pair.
    """
    figure = new_figure(SIDE + 90, SIDE + 70)
    axes = add_axes(figure, 62, 16, SIDE, SIDE)
    wanted, realised = sharing.wanted, sharing.realised
    high = max(1e-9, *wanted, *realised)
    limit = 1.0 if high > 0.5 else high * 1.05
    low = min(0.0, *wanted, *realised)
    if len(wanted) > MOST_POINTS:
        _draw_hexagons(axes, wanted, realised, (low, limit))
    else:
        axes.scatter(wanted, realised, s=14, color=WEIGHTS, alpha=0.45, linewidths=0)
    axes.plot([low, limit], [low, limit], color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.text(
        limit,
        limit,
        "as wanted ",
        ha="right",
        va="bottom",
        rotation=45,
        rotation_mode="anchor",
        fontsize=10,
        color=MUTED,
    )
    pad = 0.02 * (limit - low)
    axes.set_xlim(low - pad, limit + pad)
    axes.set_ylim(low - pad, limit + pad)
    axes.set_xlabel("wanted: similarity of the pair")
    axes.set_ylabel("realised: fraction of shared places")
    return figure


def sharing_statistics(sharing: Sharing) -> str:
    """One line of statistics: pairs, mean difference, mean absolute difference, correlation."""
    wanted, realised = sharing.wanted, sharing.realised
    n = len(wanted)
    gaps = [b - a for a, b in zip(wanted, realised, strict=True)]
    bias = math.fsum(gaps) / n
    distance = math.fsum(map(abs, gaps)) / n
    noun = "pair" if n == 1 else "pairs"
    text = f"{n:,} {noun}; realised minus wanted: mean {signed(bias)}, mean absolute {distance:.4f}"
    r = _correlation(wanted, realised)
    return text + (f"; correlation {r:.3f}." if math.isfinite(r) else ".")


def _draw_hexagons(
    axes: Any, wanted: Sequence[float], realised: Sequence[float], limits: tuple[float, float]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    # From clear to opaque: the same map is legible on light and on dark paper.
    clear = LinearSegmentedColormap.from_list("pairs", [(WEIGHTS, 0.12), (WEIGHTS, 1.0)])
    axes.hexbin(
        wanted,
        realised,
        gridsize=36,
        extent=(*limits, *limits),
        bins="log",
        mincnt=1,
        cmap=clear,
        linewidths=0.1,
    )


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    n = len(a)
    mean_a, mean_b = math.fsum(a) / n, math.fsum(b) / n
    cross = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    square_a = math.fsum((x - mean_a) ** 2 for x in a)
    square_b = math.fsum((y - mean_b) ** 2 for y in b)
    return cross / math.sqrt(square_a * square_b) if square_a > 0 and square_b > 0 else math.nan
