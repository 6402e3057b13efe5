"""`lma demo`: log in, compressed models, table and report out, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lma.cli.console import counter, out, progress
from lma.cli.prepared import find_prepared, open_or_prepare

ROWS = 200_000


def demo(
    data: Path = typer.Argument(None, help="A real log; a synthetic one is made if left out."),
    format: str = typer.Option("criteo", help="Format of that log."),
    target: Path = typer.Option(Path("runs/demo"), "--out", help="Folder for all that is made."),
    rows: int = typer.Option(ROWS, help="Rows of the log to use at most."),
    seed: int = typer.Option(0, help="Seed of the synthetic log and of training."),
    setting: list[str] = typer.Option(
        [], "--set", "-s", help="Any key of `lma compare`'s config: training.epochs=2"
    ),
) -> None:
    """Compare compression methods at 16x and 64x, on a small DLRM.

    Examples:

        lma demo

        lma demo train.txt --rows 1000000
    """
    from lma.cli.compare import print_table, run_comparison
    from lma.cli.settings import load_config
    from lma.report import write_report
    from lma.training import CompareConfig

    config = load_config(
        CompareConfig,
        None,
        {"seeds": [seed], "training.epochs": 2, "training.patience": 0},
        setting,
    )
    dataset = _dataset(data, format, target, rows, seed)
    out.print(
        f"{dataset.schema.name}: {dataset.num_rows('train'):,} training rows, "
        f"{dataset.num_tokens():,} tokens in {len(dataset.schema.features)} tables"
    )
    found = run_comparison(dataset, config, target / "results.jsonl")
    print_table(found, dataset.schema)
    report = target / "report.html"
    write_report(found, report, title=f"lma demo: {dataset.schema.name}")
    out.print(f"report with the picture: [bold]{report}[/]")


def _dataset(data: Path | None, format: str, target: Path, rows: int, seed: int) -> Any:
    """The prepared dataset, made unless an equal one is there."""
    import lma.data

    folder = target / "data"
    if data is not None:
        return open_or_prepare(format, data, folder, seed=seed, max_rows=rows)
    log = target / f"synthetic-{rows}-{seed}.tsv"
    found = find_prepared(format, log, folder, rows)
    if found is not None:
        return found
    target.mkdir(parents=True, exist_ok=True)
    with progress() as bars:
        lma.data.write_synthetic(
            log, rows=rows, seed=seed, progress=counter(bars, "writing a synthetic log, rows")
        )
    return open_or_prepare(
        format,
        log,
        folder,
        seed=seed,
        max_rows=rows,
        name="synthetic",
        description="synthetic log of Criteo's shape, made by `lma demo`",
    )
