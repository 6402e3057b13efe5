"""`lma demo`: log in, compressed models, table and report out, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lma.cli.console import counter, out, progress

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
    from lma.errors import FormatError

    log, prepared = data, target / "data"
    if log is None:
        log = target / f"synthetic-{rows}-{seed}.tsv"
    try:
        dataset = lma.data.Dataset.open(prepared)
        if _made_from(dataset.meta, log, format, rows):
            return dataset
    except (FormatError, OSError):
        pass  # none there yet, or an interrupted one: it is made anew
    with progress() as bars:
        if data is None:
            target.mkdir(parents=True, exist_ok=True)
            lma.data.write_synthetic(
                log, rows=rows, seed=seed, progress=counter(bars, "writing a synthetic log, rows")
            )
        tick = counter(bars, "preparing, bytes")
        synthetic: dict[str, Any] = {
            "name": "synthetic",
            "description": "synthetic log of Criteo's shape, made by `lma demo`",
        }
        return lma.data.prepare(
            format,
            [log],
            prepared,
            seed=seed,
            max_rows=rows,
            progress=lambda _, done, total: tick(done, total),
            **(synthetic if data is None else {}),
        )


def _made_from(meta: Any, log: Path, format: str, rows: int) -> bool:
    """Whether a dataset was prepared from this log, by its files' names and sizes."""
    files = log.rglob("*") if log.is_dir() else [log]
    sizes = {file.name: file.stat().st_size for file in files if file.is_file()}
    return (
        meta["format"] == format
        and meta["max_rows"] == rows
        and all(sizes.get(source["file"]) == source["bytes"] for source in meta["sources"])
    )
