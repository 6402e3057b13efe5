"""`lma predict`: a saved model scores a raw log."""

from __future__ import annotations

from pathlib import Path

import typer

from lma.cli.console import checked_device, counter, out, progress


def predict(
    model: Path = typer.Argument(help="Folder of a saved model, such as runs/x/model."),
    format: str = typer.Argument(help="Format of the raw log, such as criteo."),
    inputs: list[Path] = typer.Argument(help="Files or folders, in order."),
    target: Path = typer.Option(..., "--out", help="CSV file to write: probability[,label]."),
    on_error: str = typer.Option("fail", help="fail at the first bad row, or skip it."),
    max_bad: str = typer.Option("0.1%", help="With skip: how many rows, or what share, at most."),
    max_rows: int = typer.Option(None, help="Read only the first so many rows."),
    option: list[str] = typer.Option(
        [], "--option", "-o", help="The format's own options, key=value; see docs/data.md."
    ),
    device: str = typer.Option("cpu", help="cpu or cuda."),
) -> None:
    """Score raw rows: one line of probability (and label, where the log has it) per row.

    With `--on-error skip` bad rows have no line.

    Example:

        lma predict runs/criteo/model criteo test.txt --out scores.csv
    """
    import polars as pl

    from lma.cli.settings import parse_options
    from lma.data import read_raw
    from lma.files import replace_file
    from lma.training import load

    bundle, rows = load(model, device=checked_device(device)), 0
    if bundle.encoder is None:
        raise ValueError(f"{model} was saved without an encoder and cannot read raw values")
    with progress() as bars, replace_file(target) as temporary, open(temporary, "wb") as file:
        tick = counter(bars, "rows")
        frames = read_raw(
            format,
            inputs,
            on_error=on_error,
            max_bad=int(max_bad) if max_bad.isdigit() else max_bad,
            max_rows=max_rows,
            **parse_options(option),
        )
        for frame in frames:
            columns = {"probability": bundle.predict(frame)}
            if "label" in frame.columns:
                columns["label"] = frame["label"].to_numpy()
            pl.DataFrame(columns).write_csv(file, include_header=rows == 0)
            rows += len(frame)
            tick(rows, 0)
    out.print(f"{target}: {rows:,} rows")
