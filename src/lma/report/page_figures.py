"""The figures of the page as inline SVG, marked safe for the template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lma.report.byte_bars import byte_bars
from lma.report.canvas import to_inline_svg
from lma.report.curves import learning_curves
from lma.report.extras import Sharing
from lma.report.picture import Axis
from lma.report.plot_file import picture_figure
from lma.report.sharing_plot import MOST_POINTS, sharing_figure, sharing_statistics
from lma.report.summary import Summary

if TYPE_CHECKING:
    from markupsafe import Markup

_HEIGHTS: dict[Axis, int] = {"serving": 520, "weights": 440, "training": 440}


def dataset_figures(cells: Sequence[Summary], *, prefix: str) -> dict[str, Any]:
    """Pictures, learning curves and byte bars of one dataset; to be called inside `style()`."""
    from markupsafe import Markup

    name = cells[0].dataset
    pictures: dict[str, Markup] = {}
    for x, height in _HEIGHTS.items():
        figure, tooltips = picture_figure(cells, x, (1040, height), titles=False)
        label = f"Test AUC against {x} bytes on {name}, one line per method"
        pictures[x] = Markup(
            to_inline_svg(figure, prefix=f"{prefix}-{x}", label=label, tooltips=tooltips)
        )
    curves = learning_curves(cells)
    bars = byte_bars(cells)
    return {
        "pictures": pictures,
        "curves": None
        if curves is None
        else Markup(
            to_inline_svg(
                curves[0],
                prefix=f"{prefix}-curves",
                label=f"Validation AUC by training step on {name}, one panel per budget",
            )
        ),
        "curves_cut": curves is not None and curves[1],
        "bars": None
        if bars is None
        else Markup(
            to_inline_svg(
                bars,
                prefix=f"{prefix}-bars",
                label=f"Serving bytes by kind on {name}, one bar per method",
            )
        ),
    }


def sharing_section(sharing: Sequence[Sharing]) -> list[dict[str, Any]]:
    """A figure and its statistics per set of pairs; to be called inside `style()`."""
    from markupsafe import Markup

    return [
        {
            "label": entry.label,
            "statistics": sharing_statistics(entry),
            "is_density": len(entry.wanted) > MOST_POINTS,
            "figure": Markup(
                to_inline_svg(
                    sharing_figure(entry),
                    prefix=f"sharing-{number}",
                    label=f"Realised against wanted sharing {entry.label}",
                )
            ),
        }
        for number, entry in enumerate(sharing)
        if entry.wanted
    ]
