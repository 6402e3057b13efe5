"""The table of results for documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from lma.report.rows import Row, footnotes, table_rows
from lma.report.summary import Summary

_SERVING = (
    ("method", "method"),
    ("asked", "target"),
    ("serving", "serving"),
    ("weights", "weights"),
    ("signatures", "signatures"),
    ("index", "index"),
    ("ratio", "ratio"),
    ("training", "training"),
    ("test AUC", "auc"),
    ("against full", "against_full"),
    ("log-loss", "log_loss"),
    ("train s", "train_seconds"),
)
_WEIGHTS = (
    ("method", "method"),
    ("asked", "target"),
    ("weights", "weights"),
    ("fewer weights", "weight_ratio"),
    ("serving", "serving"),
    ("ratio", "ratio"),
    ("test AUC", "auc"),
    ("against full", "against_full"),
    ("log-loss", "log_loss"),
)


def markdown_table(
    summaries: Sequence[Summary], *, by: Literal["serving", "weights"] = "serving"
) -> str:
    """Results as a Markdown table per dataset, with its footnotes.

    Args:
        summaries: What `summarise` returned.
        by: "serving" splits serving bytes into weights, signatures and index and gives the ratio
            in serving bytes; "weights" counts weights alone, as the LMA paper does, beside them.

    Raises:
        ValueError: `by` is neither.
    """
    if by not in ("serving", "weights"):
        raise ValueError(f"by must be 'serving' or 'weights', got {by!r}")
    rows = table_rows(summaries)
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    parts = [
        _table([row for row in rows if row.dataset == name], name, by, heading=len(datasets) > 1)
        for name in datasets
    ]
    return "\n".join(parts)


def _table(rows: Sequence[Row], dataset: str, by: str, *, heading: bool) -> str:
    columns = _SERVING if by == "serving" else _WEIGHTS
    lines = []
    if heading:
        lines += [f"**{_escape(dataset)}**", ""]
    if rows[0].is_synthetic or any(row.is_synthetic for row in rows):
        lines += ["*Synthetic log.*", ""]
    lines.append("| " + " | ".join(header for header, _ in columns) + " |")
    align = ["---" if key in ("method", "target") else "---:" for _, key in columns]
    lines.append("| " + " | ".join(align) + " |")
    for row in rows:
        cells = [_escape(str(getattr(row, key))) for _, key in columns]
        signs = _escape(row.marks + ("*" if row.is_best else ""))
        if row.is_best:
            cells[0] = f"**{cells[0]}**"
        cells[0] += f" {signs}" if signs else ""
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    notes = [f"{_escape(sign)} {meaning}" for sign, meaning in footnotes(rows)]
    if any("±" in row.auc for row in rows):
        notes.append("AUC ± standard error over seeds")
        notes.append("against full: mean paired difference ± half of its 95 % interval")
    else:
        notes.append("one seed only: no standard errors")
    lines += ["; ".join(notes) + ".", ""]
    return "\n".join(lines)


def _escape(text: str) -> str:
    """Text that Markdown and its HTML show as it is."""
    for sign in "\\`*_{}[]<>|#~!":
        text = text.replace(sign, "&lt;" if sign == "<" else "\\" + sign)
    return text.replace("\n", " ")
