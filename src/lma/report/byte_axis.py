"""A base-two axis of bytes, with the compression that each place means written above it."""

from __future__ import annotations

import math
from typing import Any

from lma.report.palette import MUTED
from lma.report.units import human_bytes, human_ratio

_STRIDES = (1, 2, 4, 8)


def byte_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Round numbers of bytes, about evenly spaced on a base-two axis.

    1, 2, 4 ... 512 of each unit; every second, fourth or eighth of them where there are too many.

    >>> [int(tick) for tick in byte_ticks(900, 9000)]
    [1000, 2000, 4000, 8000]
    """
    series = [2**k * 1000**unit for unit in range(6) for k in range(10)]
    inside = [float(tick) for tick in series if low <= tick <= high]
    return _thin([(tick, math.log2(tick)) for tick in inside], most)


def ratio_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Powers of two between two compressions."""
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    return _thin([(2.0**k, float(k)) for k in range(first, last + 1)], most)


def draw_byte_axis(axes: Any, low: float, high: float, reference_bytes: float | None) -> None:
    """Give axes a base-two x axis from `low` to `high` bytes.

    Args:
        axes: Axes with bytes on x.
        low: Smallest bytes to show, above zero.
        high: Largest bytes to show.
        reference_bytes: What "1x" is; None leaves the second labels out.
    """
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    ticks = byte_ticks(low, high)
    axes.set_xticks(ticks, labels=[short_bytes(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    if reference_bytes is None:
        return
    top = axes.secondary_xaxis("top")
    ratios = ratio_ticks(reference_bytes / high, reference_bytes / low)
    top.set_xscale("log", base=2)
    top.set_xticks([reference_bytes / r for r in ratios], labels=[human_ratio(r) for r in ratios])
    top.set_xticks([], minor=True)
    top.tick_params(length=3, color=MUTED, labelcolor=MUTED)
    top.spines["top"].set_visible(False)


def short_bytes(count: float) -> str:
    """Bytes of a tick, which needs no three digits."""
    number, unit = human_bytes(count).split(" ")
    return f"{float(number):g} {unit}"


def _thin(ticks: list[tuple[float, float]], most: int) -> list[float]:
    """The values whose rounded exponent is a multiple of the smallest stride that leaves few."""
    for stride in _STRIDES:
        kept = [value for value, exponent in ticks if round(exponent) % stride == 0]
        if len(kept) <= most:
            return kept
    return kept[:: math.ceil(len(kept) / most)]
