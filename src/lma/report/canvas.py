"""Figures without global state: made, sized in pixels, and turned into SVG, PNG or inline SVG."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from lma.report.palette import GRID, INK, MUTED, PAPER, css_variables

_RC = {
    "svg.hashsalt": "lma",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": True,
}
DPI = 72
"""Pixels of an inline figure per inch, so that sizes here are sizes on the page."""


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The house style of figures, for as long as the block lasts."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # A user's own matplotlibrc does not change a report.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def new_figure(width: float, height: float) -> Any:
    """A figure of so many pixels; no pyplot, so nothing is kept alive."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def add_axes(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes whose frame lies at these pixels from the left and from the top of the figure."""
    total_width, total_height = figure.get_size_inches() * DPI
    return figure.add_axes(
        (
            left / total_width,
            1 - (top + height) / total_height,
            width / total_width,
            height / total_height,
        )
    )


def to_bytes(figure: Any, kind: str) -> bytes:
    """A figure as the content of a .png or .svg file, on white paper."""
    import matplotlib

    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": kind, "facecolor": PAPER}
    if kind == "svg":
        options["metadata"] = {"Date": None, "Creator": None}
    else:
        options.update(dpi=2 * DPI, metadata={"Software": None})
    # Letters as outlines: a file must look the same wherever it is shown.
    with matplotlib.rc_context({"svg.fonttype": "path"}):
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def to_inline_svg(
    figure: Any, *, prefix: str, label: str, tooltips: Mapping[str, str] | None = None
) -> str:
    """A figure as an `<svg>` element whose colours follow the page and whose text is text.

    Args:
        figure: A matplotlib figure.
        prefix: Put before every id, so that several figures can stand in one page.
        label: What the figure shows, for those who cannot see it.
        tooltips: Text to show over the element of a given `gid`.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    drop = r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>"
    body = re.sub(drop, "", svg, flags=re.DOTALL).split(">", 1)[1]
    width, height = figure.get_size_inches() * DPI
    # Text and colours are matched inside tags only: `[^<>]` cannot leave one.
    body = re.sub(r'(<[^<>]*? id=")', rf"\g<1>{prefix}-", body)
    body = re.sub(r'(xlink:href="#)', rf'href="#{prefix}-', body)
    body = re.sub(r"(<[^<>]*?url\(#)", rf"\g<1>{prefix}-", body)
    body = re.sub(r"(<text[^<>]*?)'DejaVu Sans'[^;\"]*", r"\g<1>var(--sans)", body)
    for color, name, _, _ in css_variables():
        body = re.sub(rf"(<[^<>]*?){color}\b", rf"\g<1>var(--{name})", body)
        # A tag may hold a colour twice, as fill and as stroke.
        body = re.sub(rf"(<[^<>]*?){color}\b", rf"\g<1>var(--{name})", body)
    for gid, text in (tooltips or {}).items():
        body = body.replace(
            f'<g id="{prefix}-{gid}">', f'<g id="{prefix}-{gid}"><title>{escape(text)}</title>', 1
        )
    box = f"0 0 {width:g} {height:g}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{body}'
