"""`lma report`: result lines become one HTML page."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from lma.cli.console import out


def report(
    results: list[Path] = typer.Argument(help="JSON-lines files of `lma compare` or `lma train`."),
    target: Path = typer.Option(Path("report.html"), "--out", help="The page to write."),
    title: str = typer.Option("Embedding compression", help="Its title."),
    extras: Path = typer.Option(None, help="JSON with sharing and neighbours, see docs."),
    markdown: str = typer.Option(
        None, help="Instead print a Markdown table by `serving` bytes or by `weights`."
    ),
) -> None:
    """Write one self-contained HTML page of results.

    Example:

        lma report runs/movielens.jsonl --out runs/movielens.html
    """
    from lma.report import markdown_table, summarise, write_report
    from lma.results import read_results

    found = [result for path in results for result in read_results(path)]
    if markdown is not None:
        if markdown not in ("serving", "weights"):
            raise typer.BadParameter(f"--markdown: serving or weights, found {markdown!r}")
        print(markdown_table(summarise(found), by=markdown))  # type: ignore[arg-type]
        return
    more = None if extras is None else json.loads(extras.read_text(encoding="utf-8"))
    write_report(found, target, title=title, extras=more)
    out.print(f"{target}: {len(found)} runs")
