"""Direct labels beside lines, moved apart so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lma.report.palette import INK

LETTER = 6.6
"""Mean width in pixels of a letter of a label, on the wide side."""


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart inside [low, high] and near the wanted ones, in their order.

    Neighbours that are too close form a block that is centred on the mean of what it wants;
    blocks that then touch are joined. Where there is no room for all, they are evenly spaced.

    >>> spread([10.0, 11.0, 50.0], gap=6.0, low=0.0, high=100.0)
    [7.5, 13.5, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    if len(order) > 1 and gap * (len(order) - 1) > high - low:
        gap = (high - low) / (len(order) - 1)
    blocks: list[list[int]] = []
    starts: list[float] = []
    for i in order:
        blocks.append([i])
        starts.append(_start(blocks[-1], wanted, gap, low, high))
        while len(blocks) > 1 and starts[-2] + gap * len(blocks[-2]) > starts[-1] + 1e-9:
            joined = blocks.pop(-2) + blocks.pop()
            del starts[-2:]
            blocks.append(joined)
            starts.append(_start(joined, wanted, gap, low, high))
    placed = [0.0] * len(wanted)
    for block, start in zip(blocks, starts, strict=True):
        for step, i in enumerate(block):
            placed[i] = start + gap * step
    return placed


def label_lines(
    axes: Any,
    entries: Sequence[tuple[str, float, float, str, bool]],
    *,
    side: str,
    gap: float = 15.0,
) -> None:
    """Write a name beside the end of each line, with a thin leader in the line's colour.

    Args:
        axes: Axes whose limits are final.
        entries: (name, x, y, colour, strong) of the point that each label belongs to.
        side: "left" puts the labels left of the leftmost point, "right" right of the rightmost.
        gap: Least distance of two labels in pixels.
    """
    if not entries:
        return
    pixels = axes.transData.transform([(x, y) for _, x, y, _, _ in entries])
    box = axes.get_window_extent()
    placed = spread([y for _, y in pixels], gap, box.y0 + gap / 2, box.y1 - gap / 2)
    sign = -1 if side == "left" else 1
    edge = min(x for x, _ in pixels) if side == "left" else max(x for x, _ in pixels)
    back = axes.transData.inverted()
    for (name, x, y, color, strong), level in zip(entries, placed, strict=True):
        elbow, text = edge + sign * 12, edge + sign * 24
        (elbow_x, level_y), (text_x, _) = back.transform([(elbow, level), (text, level)])
        shift = back.transform((text - sign * 3, level))[0]
        axes.plot(
            [x, elbow_x, shift],
            [y, level_y, level_y],
            color=color,
            linewidth=0.9,
            alpha=0.7,
            clip_on=False,
            zorder=2,
        )
        axes.text(
            text_x,
            level_y,
            name,
            ha="right" if side == "left" else "left",
            va="center",
            color=INK,
            fontsize=11,
            fontweight="bold" if strong else "normal",
            clip_on=False,
        )


def label_width(names: Sequence[str]) -> float:
    """Pixels that the longest of these labels takes, its leader included."""
    return 30 + LETTER * max((len(name) for name in names), default=0)


def _start(
    block: Sequence[int], wanted: Sequence[float], gap: float, low: float, high: float
) -> float:
    """First position of a block centred on what its members want, kept inside the limits."""
    centre = sum(wanted[i] for i in block) / len(block)
    start = centre - gap * (len(block) - 1) / 2
    return max(low, min(start, high - gap * (len(block) - 1)))
