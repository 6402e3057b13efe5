"""`lma compare`: methods x budgets x seeds, resumable, one JSON line per run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lma.cli.console import checked_device, err, out, progress


def compare(
    paths: list[Path] = typer.Argument(
        None,
        help="A prepared dataset and a JSON-lines file, whose runs are not repeated; with --data "
        "the file alone, or nothing.",
        metavar="[DATASET] [RESULTS]",
    ),
    preset: str = typer.Option(
        None, help="A published experiment, paper-criteo or paper-avazu; flags override it."
    ),
    log: Path = typer.Option(
        None, "--data", help="With --preset: your download, prepared once beside the results."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what it will take, and stop."),
    config: Path = typer.Option(None, "--config", "-c", help="TOML file; flags override it."),
    methods: str = typer.Option(None, help="Names with commas; `lma compare --list` shows them."),
    budgets: str = typer.Option(None, help="With commas: 16x,64x or 1MB,4MB."),
    seeds: str = typer.Option(None, help="With commas: 0,1,2."),
    learning_rates: str = typer.Option(None, help="Tried for every method, chosen on validation."),
    weight_decays: str = typer.Option(None, help="Likewise, after the learning rates."),
    repeat_chosen: bool = typer.Option(
        None,
        "--repeat-chosen/--search-every-seed",
        help="Whether only the first seed tries everything and the others repeat what it chose.",
    ),
    counts: str = typer.Option(None, help="What budgets pay for: serving bytes or weights alone."),
    epochs: int = typer.Option(None, help="Passes over the training rows at most."),
    max_rows: int = typer.Option(None, help="Training rows to use at most."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    report: Path = typer.Option(None, help="Write an HTML report there at the end."),
    setting: list[str] = typer.Option(
        [], "--set", "-s", help="Any key of the config: training.batch_size=4096"
    ),
    show: bool = typer.Option(
        False,
        "--list",
        help="Print the methods' names and stop.",
        is_eager=True,
        callback=lambda value: _list(value),
    ),
) -> None:
    """Compare methods at equal budgets. Stop it at any time: it goes on where it stopped.

    Example:

        lma compare data/movielens runs/movielens.jsonl --budgets 16x,64x --seeds 0,1,2

        lma compare --preset paper-criteo --data train.txt --dry-run
    """
    from lma.cli.preset import load_preset
    from lma.cli.settings import comma_list, load_config, numbers
    from lma.training import CompareConfig

    chosen = None if preset is None else load_preset(preset)
    folder, results = _places(paths or [], chosen, log)

    flags = {
        "methods": comma_list(methods),
        "budgets": comma_list(budgets),
        "seeds": numbers(seeds, int, "--seeds"),
        "learning_rates": numbers(learning_rates, float, "--learning-rates"),
        "weight_decays": numbers(weight_decays, float, "--weight-decays"),
        "repeat_chosen": repeat_chosen,
        "counts": counts,
        "training.epochs": epochs,
        "max_rows": max_rows,
    }
    base = None if chosen is None else chosen.comparison
    compare_config = load_config(CompareConfig, config, flags, setting, base)
    checked_device(device)
    data = _dataset(chosen, log, folder, compare_config, dry_run)
    if data is None:
        return
    found = run_comparison(data, compare_config, results, device=device)
    print_table(found, data.schema)
    if report is not None:
        from lma.report import write_report

        write_report(found, report, title=f"Comparison on {data.schema.name}")
        out.print(f"report: {report}")


def _places(paths: list[Path], chosen: Any, log: Path | None) -> tuple[Path, Path]:
    """The dataset's folder and the file of results."""
    if log is None:
        if len(paths) != 2:
            raise typer.BadParameter("give a prepared dataset and a file for results")
        return paths[0], paths[1]
    if chosen is None:
        raise typer.BadParameter(
            "--data needs a --preset, which knows the log's format; `lma prepare` takes any"
        )
    if len(paths) > 1:
        raise typer.BadParameter("with --data give the file for results, or nothing")
    results = paths[0] if paths else Path("runs") / chosen.name / "results.jsonl"
    return results.parent / "data", results


def _dataset(chosen: Any, log: Path | None, folder: Path, config: Any, dry_run: bool) -> Any:
    """The dataset, prepared if need be; None after a dry run. Says first what all will take."""
    from lma.cli.forecast import print_forecast, print_preparation
    from lma.cli.prepared import find_prepared, open_or_prepare
    from lma.data import Dataset
    from lma.training.forecast import LogSize

    if log is None:
        data = Dataset.open(folder)
    else:
        data = find_prepared(chosen.log.format, log, folder)
        if data is None:
            print_forecast(config, print_preparation(chosen.log, log))
            if dry_run:
                return None
            return open_or_prepare(chosen.log.format, log, folder, split=chosen.log.split)
    if chosen is not None or dry_run:
        print_forecast(config, LogSize.of(data))
    return None if dry_run else data


def run_comparison(data: Any, config: Any, results: Path, *, device: str = "cpu") -> Any:
    """`lma.training.compare` with progress bars; tells which cells did not fit."""
    from lma.cli.train import training_bar
    from lma.training import SignatureShelf
    from lma.training.comparison import compare as run_cells
    from lma.training.methods import method_spec

    with progress() as bars:
        overall = bars.add_task("runs", total=None, note="")
        fit = bars.add_task("signatures", total=None, note="", visible=False)

        def fitting(done: int, total: int, *_: int) -> None:
            bars.update(fit, completed=done, total=total, visible=done < total)

        def start(run: Any, number: int, total: int) -> Any:
            title = f"{method_spec(run.method.name).label} {run.method.budget}".strip()
            bars.update(overall, completed=number, total=total, note=f"{title}, seed {run.seed}")
            return training_bar(bars, "  steps")

        found, skipped = run_cells(
            data,
            config,
            results,
            shelf=SignatureShelf(data, fitting),
            device=device,
            progress=start,
        )
    for cell in skipped:
        err.print(
            f"[yellow]left out[/] {cell.config.method.name} {cell.config.method.budget}: "
            f"{cell.reason}"
        )
    return found


def print_table(found: Any, schema: Any) -> None:
    """The table of results, with a word about synthetic data where it is."""
    from lma.report import results_table, summarise

    if not found:
        raise ValueError("no method fits any of the budgets: raise the budgets")
    title = schema.name
    if "synthetic" in schema.description.lower():
        title += " (synthetic data)"
    out.print(results_table(summarise(found), title=title))


def _list(value: bool) -> None:
    if value:
        from lma.training import METHODS

        for name, spec in METHODS.items():
            out.print(f"{name:24} {spec.label}")
        raise typer.Exit
