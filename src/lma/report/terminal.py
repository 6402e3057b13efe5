"""The table of results in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lma.report.rows import Row, footnotes, table_rows
from lma.report.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table


def results_table(summaries: Sequence[Summary], *, title: str | None = None) -> Table:
    """Results as a `rich` table: bytes by kind, ratio, quality, time.

    Args:
        summaries: What `summarise` returned.
        title: Line above the table.

    Returns:
        A table to hand to `rich.console.Console.print`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = table_rows(summaries)
    table = Table(
        title=None if title is None else Text(title),
        caption=_caption(rows),
        caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("method", overflow="fold")
    for name in ("serving", "weights", "signatures", "index", "ratio"):
        header = "signat." if name == "signatures" else name
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("test\nAUC", justify="right", no_wrap=True)
    table.add_column("log-\nloss", justify="right", no_wrap=True)
    table.add_column("train\ns", justify="right", no_wrap=True)
    many = len({row.dataset for row in rows}) > 1
    # Numbers are written tightly, so that the table fits a terminal of 80 columns.
    for row in rows:
        if row.is_first:
            table.add_section()
            heading = [row.dataset if many else "", row.target]
            if any(heading):
                text = " · ".join(part for part in heading if part)
                table.add_row(Text(text, style="dim italic"))
        style = "bold" if row.is_best else ""
        signs = ("*" if row.is_best else "") + row.marks
        table.add_row(
            Text(row.method + (f" {signs}" if signs else ""), style=style),
            *(
                text.replace(" ", "")
                for text in (row.serving, row.weights, row.signatures, row.index, row.ratio)
            ),
            Text(row.auc.replace(" ± 0", " ±"), style=style),
            row.log_loss,
            row.train_seconds,
        )
    return table


def _caption(rows: Sequence[Row]) -> str:
    from rich.markup import escape

    lines = [f"{sign} {meaning}" for sign, meaning in footnotes(rows)]
    synthetic = list(dict.fromkeys(row.dataset for row in rows if row.is_synthetic))
    lines += [f"{name}: a synthetic log" for name in synthetic]
    if any("±" in row.auc for row in rows):
        lines.append("± standard error over seeds")
    else:
        lines.append("one seed only: no standard errors")
    return escape("\n".join(lines))
