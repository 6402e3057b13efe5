"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lma.files import replace_file
from lma.report.best import best_per_budget
from lma.report.canvas import style
from lma.report.caveats import caveats
from lma.report.extras import read_extras
from lma.report.headline import against, headline
from lma.report.page_figures import dataset_figures, sharing_section
from lma.report.palette import css_variables
from lma.report.provenance import configurations, environment_rows
from lma.report.rows import footnotes, table_rows, with_error
from lma.report.summary import Summary, summarise
from lma.report.units import human_bytes, human_ratio, score, signed
from lma.results import RunResult

TEMPLATE = "page.html.j2"


def write_report(
    results: Iterable[RunResult],
    path: str | os.PathLike[str],
    *,
    title: str,
    extras: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the report of result lines as one self-contained HTML page.

    The page has no scripts and loads nothing; all text that comes from results is escaped. It
    replaces an older one only when it is written completely.

    Args:
        results: Result lines of any datasets, methods, targets and seeds.
        path: The page.
        title: Its heading.
        extras: Optional figures from a trained model, as read from JSON: `{"sharing": {"wanted":
            [...], "realised": [...], "label": ...}}` (or a list of such) and `{"neighbours":
            [{"token": ..., "table": ..., "neighbours": [[name, fraction], ...]}]}`.
        notes: Paragraphs to print below the headline.

    Raises:
        ValueError: There is no result, or `extras` is not of this form.
        OSError: The page cannot be written; an older one stands.
    """
    page = render_report(results, title=title, extras=extras, notes=notes)
    with replace_file(Path(path)) as temporary:
        temporary.write_bytes(page.encode())


def render_report(
    results: Iterable[RunResult],
    *,
    title: str,
    extras: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The page of `write_report` as text."""
    from jinja2 import Environment, StrictUndefined

    summaries = summarise(results)
    checked = read_extras(extras)
    datasets = list(dict.fromkeys(s.dataset for s in summaries))
    with style():
        sections = [
            _dataset(number, [s for s in summaries if s.dataset == name])
            for number, name in enumerate(datasets)
        ]
        sharing = sharing_section(checked.sharing)
    source = importlib.resources.files("lma.report").joinpath(TEMPLATE).read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        title=title,
        notes=notes,
        colors=css_variables(),
        headlines=headline(summaries),
        synthetic=[s for s in sections if s["is_synthetic"]],
        datasets=sections,
        sharing=sharing,
        neighbours=checked.neighbours,
        environment=environment_rows(summaries),
        num_runs=sum(len(s.runs) for s in summaries),
        score=score,
    )


def _dataset(number: int, cells: Sequence[Summary]) -> dict[str, Any]:
    """All that the template says about one dataset."""
    rows = table_rows(cells)
    return {
        "anchor": f"data-{number}",
        "name": cells[0].dataset,
        "description": next((s.description for s in cells if s.description), ""),
        "is_synthetic": any(s.is_synthetic for s in cells),
        "cards": _cards(cells),
        "caveats": caveats(cells),
        "rows": rows,
        "footnotes": footnotes(rows),
        "has_errors": any("±" in row.auc for row in rows),
        "has_full": any(s.is_full for s in cells),
        "reference": human_bytes(cells[0].reference_bytes),
        "configurations": configurations(cells),
        **dataset_figures(cells, prefix=f"d{number}"),
    }


def _cards(cells: Sequence[Summary]) -> list[dict[str, str]]:
    """The best method of each budget, in few words."""
    cards = []
    for budget in best_per_budget(cells):
        best, full, second = budget.best, budget.against_full, budget.against_runner_up
        lines = {
            "target": budget.target,
            "method": best.method,
            "auc": with_error(best.test_auc),
            "bytes": f"{human_bytes(best.serving.mean)}, {human_ratio(best.compression.mean)}",
            "full": "",
            "interval": "",
            "second": "",
        }
        if full is not None:
            lines["full"] = against(full, "the full tables")
            if full.n > 1:
                lines["interval"] = f"95 %: {signed(full.low95)} to {signed(full.high95)}"
        if second is not None and budget.runner_up is not None:
            lines["second"] = f"{against(second, budget.runner_up.method)}, next on validation"
        cards.append(lines)
    return cards
